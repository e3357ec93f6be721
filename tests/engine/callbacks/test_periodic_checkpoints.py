import contextlib
import math
import os
import shutil
from types import SimpleNamespace

import pytest

from hydet.engine import load_checkpoint
from hydet.engine.callbacks import Checkpoints, Evaluation


def make_evaluation(tiny, values=None, name="quality"):
    return Evaluation(every=1, loader=tiny.make_batches(), evaluators=tiny.Metric(values, name=name))


def list_folder(path):
    return sorted(p.name for p in (path / "checkpoints").iterdir())


def link_of(path, name):
    return os.readlink(path / "checkpoints" / name)


def test_the_last_and_the_best_checkpoints_are_kept(tiny, tmp_path):
    values = [0.1, 0.5, 0.2, math.nan, 0.3, 0.4]
    callbacks = [Checkpoints(every=2, keep_last=2, best="quality"), make_evaluation(tiny, values)]
    tiny.build_trainer(tmp_path, callbacks=callbacks).fit()
    assert list_folder(tmp_path) == ["best", "last", "step_00000002", "step_00000004", "step_00000006"]
    assert link_of(tmp_path, "best") == "step_00000002" and link_of(tmp_path, "last") == "step_00000006"
    best = load_checkpoint(tmp_path / "checkpoints" / "best")
    assert best.metrics["quality"] == 0.5 and "val_loss/total" in best.metrics


def test_a_best_value_between_two_checkpoints_gets_its_own(tiny, tmp_path):
    callbacks = [Checkpoints(every=100, best="quality"), make_evaluation(tiny, [1.0, 0.9, 0.8])]
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=callbacks).fit()
    assert list_folder(tmp_path) == ["best", "last", "step_00000001", "step_00000003"]


def test_a_smaller_loss_is_better(tiny, tmp_path):
    evaluation = make_evaluation(tiny, [0.5, 0.1, 0.3], name="my_loss")
    callbacks = [evaluation, Checkpoints(every=1, best="my_loss")]
    tiny.build_trainer(tmp_path, max_steps=3, callbacks=callbacks).fit()
    assert link_of(tmp_path, "best") == "step_00000002"


def test_unknown_metrics_name_the_nearest(tiny, tmp_path):
    callbacks = [make_evaluation(tiny), Checkpoints(every=1, best="qualty")]
    with pytest.raises(ValueError, match="nearest: 'quality'"):
        tiny.build_trainer(tmp_path, callbacks=callbacks).fit()


def test_checkpoints_hold_config_and_class_names(tiny, tmp_path):
    metadata = SimpleNamespace(to_dict=lambda: {"name": "pets", "thing_classes": ["cat", "dog"]})
    options = {"config": {"model": {"num_classes": 2}}, "metadata": metadata, "max_steps": 1}
    tiny.build_trainer(tmp_path, callbacks=[Checkpoints(every=1)], **options).fit()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.class_names == ("cat", "dog") and checkpoint.config.model.num_classes == 2


def test_a_new_run_does_not_overwrite_another(tiny, tmp_path):
    tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    with pytest.raises(FileExistsError, match="resume=auto"):
        tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()


def test_a_run_that_goes_back_keeps_its_own_checkpoints_and_sets_later_ones_aside(tiny, tmp_path):
    def build(steps):
        return tiny.build_trainer(tmp_path, max_steps=steps, callbacks=[Checkpoints(every=1, keep_last=2)])

    build(4).fit()
    build(4).fit(resume=tmp_path / "checkpoints" / "step_00000003")
    names = list_folder(tmp_path)
    assert [n for n in names if n.startswith("step_")] == ["step_00000003", "step_00000004"]
    assert len([n for n in names if n.startswith("set_aside_step_00000004")]) == 1


def test_the_best_value_of_another_metric_is_not_restored():
    callback = Checkpoints(every=1, best="box/AP")
    callback.load_state_dict({"best": "mask/AP", "best_value": 0.9, "best_step": 3})
    assert callback.best_value is None
    callback.load_state_dict({"best": "box/AP", "best_value": 0.9, "best_step": 3})
    assert (callback.best_value, callback.best_step) == (0.9, 3)


@pytest.mark.parametrize("options", [{"every": 0}, {"keep_last": 0}, {"mode": "most"}])
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError):
        Checkpoints(**{"every": 1, **options})


@pytest.mark.parametrize("change", [{"best": "speed"}, {"mode": "min"}])
def test_a_best_value_of_another_metric_or_mode_is_not_restored(change):
    first = Checkpoints(every=1, best="quality")
    first.best_value, first.best_step = 0.5, 3
    second = Checkpoints(**{"every": 1, "best": "quality", **change})
    second.load_state_dict(first.state_dict())
    assert (second.best_value, second.best_step) == (None, None)
    third = Checkpoints(every=1, best="quality")
    third.load_state_dict({"best": "quality", "best_value": 0.5, "best_step": 3})  # of version 0.2
    assert (third.best_value, third.best_step) == (0.5, 3)


def test_damaged_checkpoints_after_the_resumed_one_are_set_aside_with_one_line_each(tiny, tmp_path, capsys):
    def build(steps):
        return tiny.build_trainer(tmp_path, max_steps=steps, callbacks=[Checkpoints(every=1, keep_last=4)])

    build(4).fit()
    folder = tmp_path / "checkpoints"
    (folder / "step_00000003" / "metadata.json").write_text("{", encoding="utf-8")
    (folder / "step_00000004" / "model.safetensors").write_bytes(b"")
    capsys.readouterr()
    build(2).fit(resume="auto")
    assert [p for p in list_folder(tmp_path) if "step" in p and not p.startswith("set")] == [
        "step_00000001",
        "step_00000002",
    ]
    assert [p for p in list_folder(tmp_path) if p.startswith("set_aside")] == [
        "set_aside_step_00000003",
        "set_aside_step_00000004",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "continuing from" in line and "damaged" in line]) == 2
    assert len([line for line in lines if "kept as set_aside_" in line]) == 2


def test_a_copy_of_a_run_with_links_followed_continues(tiny, tmp_path):
    def build(folder, steps):
        callbacks = [
            Checkpoints(every=1, keep_last=2, best="quality"),
            make_evaluation(tiny, [0.5, 0.9, 0.1, 0.2]),
        ]
        return tiny.build_trainer(tmp_path / folder, max_steps=steps, callbacks=callbacks)

    build("run", 3).fit()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # as `cp -rL`
    last, best = (tmp_path / "copy" / "checkpoints" / name for name in ("last", "best"))
    assert not last.is_symlink() and not best.is_symlink()
    build("copy", 4).fit(resume="auto")
    assert list_folder(tmp_path / "copy") == [
        "best",
        "last",
        "step_00000002",
        "step_00000003",
        "step_00000004",
    ]
    assert link_of(tmp_path / "copy", "last") == "step_00000004"
    assert link_of(tmp_path / "copy", "best") == "step_00000002"


def test_a_folder_in_the_place_of_a_link_that_is_no_copy_is_set_aside(tiny, tmp_path):
    tiny.build_trainer(tmp_path, max_steps=1, callbacks=[Checkpoints(every=1)]).fit()
    last = tmp_path / "checkpoints" / "last"
    last.unlink()
    last.mkdir()
    (last / "notes.txt").touch()
    tiny.build_trainer(tmp_path, max_steps=2, callbacks=[Checkpoints(every=1)]).fit(resume=last)
    assert (tmp_path / "checkpoints" / "set_aside_last" / "notes.txt").exists()
    assert link_of(tmp_path, "last") == "step_00000002"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_while_the_only_checkpoint_is_replaced_loses_nothing(renames, tiny, tmp_path, monkeypatch):
    """With keep_last=1, the newest step is written again after a later evaluation improved on the best value."""

    def build():
        return tiny.build_trainer(tmp_path, max_steps=2, callbacks=[Checkpoints(every=2, keep_last=1)])

    class Killed(BaseException):
        pass

    real_rename, calls = os.rename, []

    def renaming(*paths):
        calls.append(paths)
        if len(calls) > renames:
            raise Killed
        real_rename(*paths)

    trainer = build()
    trainer.fit()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", renaming)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with contextlib.suppress(Killed):
            trainer.save(tmp_path / "checkpoints" / "step_00000002")
    resumed = build()
    resumed.fit(resume="auto")
    assert resumed.step == 2 and list_folder(tmp_path) == ["last", "step_00000002"]
