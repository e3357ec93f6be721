from collections import Counter
from functools import partial

import pytest
import torch

from hydet.engine import load_checkpoint
from hydet.engine.callbacks import EMA, Checkpoints
from hydet.engine.run_settings import SettingChange, changes_between, is_same
from hydet.engine.schedules import FactorSchedule, constant


def test_a_checkpoint_holds_the_settings_of_its_run(tiny, tmp_path):
    callbacks = [EMA(decay=0.5), Checkpoints(every=2)]
    scheduler = partial(constant, warmup_steps=10)
    trainer = tiny.build_trainer(tmp_path, max_steps=2, callbacks=callbacks, scheduler=scheduler, seed=3)
    trainer.fit()
    settings = load_checkpoint(tmp_path).training_state()["settings"]
    assert settings["optimizer"] == "torch.optim.adamw.AdamW"
    assert settings["scheduler"] == "hydet.engine.schedules.FactorSchedule"
    assert settings["schedule"] == {"warmup_steps": 10, "warmup_factor": 0.001}
    names = {name for name, _ in trainer.model.named_parameters()}
    assert {name for group in settings["groups"] for name in group["parameters"]} == names
    assert [group["options"]["initial_lr"] for group in settings["groups"]] == [0.01, 0.01]
    assert [group["options"]["lr"] for group in settings["groups"]] == [0.01 * 0.001] * 2  # of the first step
    assert settings["values"] == {
        "trainer.max_steps": 2, "trainer.precision": "fp32", "trainer.accumulate": 1, "trainer.clip_norm": 1.0,
        "trainer.clip_value": None, "trainer.clip_parameter_norm": None, "seed": 3,
    }  # fmt: skip
    assert settings["callbacks"] == {
        "EMA": {"decay": 0.5, "warm_up": True},
        "Checkpoints": {"every": 2, "keep_last": 2, "best": None, "mode": "auto"},
    }


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (0.1, 0.1, True),
        (0.1, 0.2, False),
        (None, 0.0, False),
        (float("nan"), float("nan"), True),
        ((0.9, 0.999), [0.9, 0.999], True),
        ((0.9, 0.999), [0.9], False),
        (torch.tensor(0.5), 0.5, True),
        (torch.tensor(0.5), torch.tensor(0.25), False),
        (torch.tensor(0.5), None, False),
        ({"gamma": 1, "new in torch": 2}, {"gamma": 1}, True),
        ({"gamma": 1}, {"gamma": 2}, False),
        (Counter({2: 1, 5: 1}), Counter({5: 1}), False),
        ([{"gamma": 1}], [{"gamma": 2}], False),
    ],
)
def test_comparison_of_values(a, b, same):
    assert is_same(a, b) is is_same(b, a) is same


def test_changes_are_one_short_printable_line():
    changes = changes_between({"a": 1, "b": None, "c": 2}, {"a": 1, "b": False, "d": "x\ny" * 100}, "s.")
    assert [str(change) for change in changes[:2]] == ["s.b: null -> false", "s.c: 2 -> null"]
    assert len(str(changes[2])) < 130 and "\n" not in str(changes[2])
    assert changes_between({"a": 1}, {"b": 1}, "", only_common=True) == []
    assert str(SettingChange("a", 1e-8, [1, 2])) == "a: 1e-08 -> [1, 2]"


def test_a_schedule_keeps_its_settings_when_it_loads_the_state_of_another():
    def build(**options):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return constant(optimizer, **options)

    schedule = build(warmup_steps=4)
    assert isinstance(schedule, FactorSchedule)
    schedule.load_state_dict(build(warmup_steps=2).state_dict())
    assert schedule.settings["warmup_steps"] == 4
