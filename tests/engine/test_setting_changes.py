"""Settings that a user changes between a checkpoint and the run that continues it: what applies and what is printed."""

import copy
import json
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf

from hydet.engine import Callback
from hydet.engine.callbacks import EMA, Checkpoints
from hydet.engine.run_settings import SettingChange
from hydet.engine.schedules import warmup_cosine
from hydet.engine.setting_changes import compare_configs, describe_changes

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
CONFIG = {
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.8, "momentum": 0.9},
    "schedule": {"_target_": "hydet.engine.warmup_cosine", "max_steps": 6},
    "trainer": {"max_steps": 6, "clip_norm": 1.0},
    "callbacks": {"ema": {"decay": 0.5}},
    "batch_size": 2,
    "seed": 0,
    "output_dir": "runs/a",
    "resume": False,
}


@pytest.fixture
def resume(tiny, tmp_path, capsys):
    """Return a function that trains three steps, continues with other options, and returns the trainer and the lines."""

    def run(first, second, *, edit=None):
        tiny.build_trainer(
            tmp_path, **{"max_steps": 3, "callbacks": [Checkpoints(every=3)], "optimizer": SGD, **first}
        ).fit()
        if edit is not None:
            edit(tmp_path / "checkpoints" / "step_00000003")
        capsys.readouterr()
        trainer = tiny.build_trainer(
            tmp_path, **{"max_steps": 3, "callbacks": [Checkpoints(every=3)], "optimizer": SGD, **second}
        )
        trainer.fit(resume="auto")
        lines = capsys.readouterr().out.splitlines()
        return trainer, [line for line in lines if line.startswith("resumed with")]

    return run


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"clip_norm": 0.1}, ["trainer.clip_norm: 1.0 -> 0.1"]),
        ({"clip_norm": None}, ["trainer.clip_norm: 1.0 -> null"]),
        ({"clip_value": 2.0}, ["trainer.clip_value: null -> 2.0"]),
        ({"accumulate": 2}, ["trainer.accumulate: 1 -> 2"]),
        ({"precision": "bf16"}, ["trainer.precision: fp32 -> bf16"]),
        ({"max_steps": 4}, ["trainer.max_steps: 3 -> 4"]),
        ({"seed": 7}, ["seed: 0 -> 7"]),
        ({}, []),
    ],
)
def test_arguments_of_the_trainer_apply_and_are_named(resume, options, lines):
    trainer, printed = resume({}, options)
    assert printed == [f"resumed with {line}" for line in lines]
    for name in ("clip_norm", "clip_value", "accumulate"):
        assert getattr(trainer, name) == options.get(name, {"clip_norm": 1.0, "accumulate": 1}.get(name))


def test_another_seed_restarts_the_random_numbers(tiny, tmp_path):
    class Draw(Callback):
        def on_fit_start(self, trainer):
            self.value = torch.rand(1)

    tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    values = []
    for seed in (0, 7, 7):
        draw = Draw()
        tiny.build_trainer(tmp_path, max_steps=1, callbacks=[draw, Checkpoints(every=1)], seed=seed).fit(
            resume="auto"
        )
        values.append(draw.value)
    assert values[0] != values[1] == values[2]


def test_the_decay_of_an_average_applies(resume):
    def ema(decay):
        return EMA(decay=decay, warm_up=False)

    second = ema(0.0)
    trainer, lines = resume(
        {"callbacks": [ema(0.5), Checkpoints(every=3)]},
        {"callbacks": [second, Checkpoints(every=3)], "max_steps": 4},
    )
    assert "resumed with callbacks.EMA.decay: 0.5 -> 0.0" in lines
    assert torch.equal(second.state_dict()["average"]["head.weight"], trainer.model.head.weight)


def changed(**values):
    """Return CONFIG with other values, whose keys have two underscores in place of a dot."""
    config = OmegaConf.create(CONFIG)
    for key, value in values.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def test_changes_have_the_keys_of_the_config(resume):
    """The learning rate of the config is that of 16 images, the one of the optimizer that of the batch."""
    _, lines = resume(
        {"config": CONFIG, "max_steps": 3},
        {
            "config": changed(optimizer__lr=1.6, callbacks__ema__decay=0.9, output_dir="b", resume="auto"),
            "optimizer": partial(SGD, lr=0.2),
        },
    )
    assert lines == [
        "resumed with optimizer.lr: 0.8 -> 1.6",
        "resumed with callbacks.ema.decay: 0.5 -> 0.9",
    ]


def test_a_rate_that_follows_from_the_batch_size_is_named(resume):
    _, lines = resume(
        {"config": CONFIG}, {"config": changed(batch_size=4), "optimizer": partial(SGD, lr=0.2)}
    )
    assert lines == ["resumed with batch_size: 2 -> 4", "resumed with learning rate: 0.1 -> 0.2"]


def test_configs_of_different_versions():
    """Keys that only one config has count where training options are, not in the description of a model."""
    old, new = copy.deepcopy(CONFIG), copy.deepcopy(CONFIG)
    old["model"], new["model"] = {"depth": 50, "old": 1}, {"depth": 18, "new": 1}
    new["schedule"]["max_warmup_fraction"] = 0.1
    new["optimizer"]["betas"] = [0.9, 0.99]
    assert sorted(str(change) for change in compare_configs(OmegaConf.create(old), new)) == [
        "model.depth: 50 -> 18",
        "optimizer.betas: null -> [0.9, 0.99]",
        "schedule.max_warmup_fraction: null -> 0.1",
    ]
    assert compare_configs({}, new) == compare_configs(old, None) == []


def test_many_changes_are_summed_up():
    changes = [SettingChange(f"data.{i}", 0, 1) for i in range(100)]
    lines = describe_changes([], changes)
    assert len(lines) == 41 and lines[-1] == "resumed with 60 more changes of the config"


def test_a_damaged_config_does_not_end_the_run(resume):
    def damage(folder):
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        (folder / "config.yaml").write_text("[" + text[1:], encoding="utf-8")

    with pytest.warns(UserWarning, match="cannot be named"):
        _, lines = resume(
            {"config": CONFIG}, {"config": CONFIG, "optimizer": partial(SGD, lr=0.2)}, edit=damage
        )
    assert lines == ["resumed with optimizer.lr: 0.1 -> 0.2"]


# Checkpoints of version 0.2 and older hold no settings.


def rewrite_state(folder, change):
    """Change the training state of a checkpoint by a function."""
    state = torch.load(folder / "training_state.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "training_state.pt")
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    metadata["files"]["training_state.pt"] = (folder / "training_state.pt").stat().st_size
    del metadata["sha256"]
    (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")


def remove_settings(folder):
    rewrite_state(folder, lambda state: state.pop("settings"))


@pytest.mark.parametrize(
    "scheduler", [None, partial(warmup_cosine, max_steps=6, warmup_steps=1), "one cycle"]
)
@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"lr": 0.2}, ["optimizer.lr: 0.1 -> 0.2"]),
        ({"weight_decay": 0.5}, ["optimizer.weight_decay: 0 -> 0.5"]),
        ({}, []),
    ],
)
def test_options_of_an_older_checkpoint(resume, tiny, tmp_path, scheduler, options, lines):
    if scheduler == "one cycle":  # changes the momentum, too, and computes rates from max_lr
        scheduler = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=7)
        lines = [line for line in lines if "lr" not in line]
    second = {"scheduler": scheduler, "optimizer": partial(SGD, **options)}
    trainer, printed = resume({"scheduler": scheduler}, second, edit=remove_settings)
    assert printed == [f"resumed with {line}" for line in lines]
    expected = tiny.build_trainer(tmp_path / "whole", max_steps=3, **second)
    expected.fit()
    for group, other in zip(trainer.optimizer.param_groups, expected.optimizer.param_groups, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }


def test_the_schedule_of_an_older_checkpoint(resume, tiny, tmp_path):
    cosine = partial(warmup_cosine, max_steps=6, warmup_steps=1)
    second = {"scheduler": partial(cosine, max_steps=12), "config": changed(schedule__max_steps=12)}
    trainer, printed = resume({"scheduler": cosine, "config": CONFIG}, second, edit=remove_settings)
    assert printed == ["resumed with schedule.max_steps: 6 -> 12"]
    expected = tiny.build_trainer(tmp_path / "whole", max_steps=3, optimizer=SGD, **second)
    expected.fit()
    assert trainer.optimizer.param_groups[0]["lr"] == expected.optimizer.param_groups[0]["lr"]


def test_the_schedule_of_an_older_checkpoint_without_a_config(resume):
    cosine = partial(warmup_cosine, max_steps=6, warmup_steps=1)
    _, printed = resume(
        {"scheduler": cosine}, {"scheduler": partial(cosine, max_steps=12)}, edit=remove_settings
    )
    assert len(printed) == 1 and printed[0].startswith("resumed with learning rate: 0.05")


def test_the_seed_of_an_older_checkpoint(resume):
    _, printed = resume({"config": CONFIG}, {"config": changed(seed=7), "seed": 7}, edit=remove_settings)
    assert printed == ["resumed with seed: 0 -> 7"]


@pytest.mark.parametrize("config", [None, CONFIG])
def test_another_optimizer_than_in_an_older_checkpoint(resume, config):
    second = {"optimizer": partial(torch.optim.AdamW, lr=0.1)}
    if config is not None:
        second["config"] = changed(optimizer___target_="torch.optim.AdamW")
    with pytest.raises(ValueError, match=r"cannot resume from .*AdamW instead of.*init_from="):
        resume({"config": config}, second, edit=remove_settings)


def test_other_groups_than_in_an_older_checkpoint(resume):
    groups = {"groups": lambda model: [{"params": list(model.parameters()), "lr_factor": 1.0}]}
    with pytest.raises(ValueError, match=r"cannot resume from .*sizes \[4, 2\], those of this run \[6\]"):
        resume({}, groups, edit=remove_settings)


@pytest.mark.parametrize("settings", [{"values": 3}, {"optimizer": "torch.optim.sgd.SGD"}])
def test_damaged_settings_name_the_file(resume, settings):
    with pytest.raises(ValueError, match=r"training_state.pt: settings cannot be read"):
        resume(
            {}, {}, edit=lambda folder: rewrite_state(folder, lambda state: state.update(settings=settings))
        )
