import json
import math
import os
from collections import Counter

import numpy as np
import pytest
import torch

from hydet.engine import (
    checkpoint_folder,
    find_last_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from hydet.engine.checkpoint_search import find_checkpoint_to_resume, restore_replaced_checkpoints
from hydet.engine.folder_links import link_folder
from hydet.files import atomic_writes


def write(folder, step=1, **options):
    weights = options.pop("weights", {"w": torch.arange(3.0)})
    state = options.pop("training_state", {"step": step})
    metadata = options.pop("metadata", {"step": step})
    return save_checkpoint(folder, weights=weights, training_state=state, metadata=metadata, **options)


def test_round_trip(tmp_path):
    state = {
        "numbers": [1, 2.5, None, True, "x"],
        "array": np.arange(3),
        "scalar": np.float32(0.5),
        "counter": Counter({3: 1}),
        "nested": {"pair": (1, torch.ones(2))},
    }
    dataset = {"thing_classes": ["cat", "dog"]}
    written = save_checkpoint(
        tmp_path / "c",
        weights={"w": torch.arange(3.0)},
        training_state=state,
        config={"model": {"num_classes": 2}, "same": "${model.num_classes}"},
        metadata={"step": 7, "metrics": {"box/AP": 0.25, "box/APl": math.nan}, "dataset": dataset},
    )
    read = load_checkpoint(tmp_path / "c")
    assert read == written
    assert read.step == 7 and read.class_names == ("cat", "dog")
    assert read.metrics["box/AP"] == 0.25 and math.isnan(read.metrics["box/APl"])
    assert read.config.same == 2
    assert torch.equal(read.weights()["w"], torch.arange(3.0))
    loaded = torch.load(tmp_path / "c" / "training_state.pt", weights_only=True)
    assert loaded["numbers"] == state["numbers"] and loaded["scalar"] == 0.5
    assert torch.equal(loaded["array"], torch.arange(3)) and loaded["counter"] == state["counter"]


def test_shared_strided_and_empty_weights(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    weights = {"a": base, "b": base, "row": base[0], "t": base.t(), "none": torch.zeros(0, 4)}
    read = write(tmp_path / "c", weights=weights).weights()
    assert read.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(read[name], value)


def test_state_that_needs_pickle_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"\['callbacks'\]\['mine'\]\[1\]"):
        write(tmp_path / "c", training_state={"callbacks": {"mine": [1, object()]}})
    assert list(tmp_path.iterdir()) == []


class Crash(BaseException):
    pass


@pytest.mark.parametrize("replace", [False, True])
def test_a_crash_at_any_call_leaves_a_complete_checkpoint(tmp_path, monkeypatch, replace):
    """For every n, the process dies instead of the nth write, flush or rename."""
    calls = [(atomic_writes.os, "fsync"), (atomic_writes.os, "rename"), (checkpoint_folder, "save_file")]
    calls += [(checkpoint_folder.torch, "save"), (checkpoint_folder.json, "dumps")]
    crashes = 0
    for n in range(100):
        folder = tmp_path / str(n)
        write(folder / "step_1", step=1)
        link_folder(folder / "last", folder / "step_1")
        remaining = [n]

        def failing(function, remaining=remaining):
            def call(*args, **kwargs):
                if remaining[0] == 0:
                    raise Crash
                remaining[0] -= 1
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(atomic_writes.shutil, "rmtree", lambda *_, **__: None)  # no time to clean up
            for owner, name in calls:
                patch.setattr(owner, name, failing(getattr(owner, name)))
            target = folder / ("step_1" if replace else "step_2")
            try:
                write(target, step=2)
            except Crash:
                crashes += 1
                finished = False
            else:
                finished = True
        assert find_checkpoint_to_resume("auto", folder).step in (1, 2)
        assert load_checkpoint(folder / "last").step in (1, 2)
        restore_replaced_checkpoints(folder)
        atomic_writes.remove_leftovers(folder)
        assert find_last_checkpoint(folder).name == "step_1" or not replace
        assert not any(p.name.startswith(".") for p in folder.iterdir())
        if finished:
            break
    assert finished and crashes > 8


def test_disk_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    write(tmp_path / "step_1")
    monkeypatch.setattr(checkpoint_folder.torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "step_2", step=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]


def test_damage_is_named(tmp_path):
    written = write(tmp_path / "checkpoints" / "step_1")
    file = written.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors has \d+ bytes"):
        load_checkpoint(written.path)
    assert find_last_checkpoint(tmp_path) is None
    file.unlink()
    with pytest.raises(ValueError, match="incomplete"):
        load_checkpoint(written.path)
    (written.path / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(written.path)


def test_damage_inside_the_files_is_named(tmp_path):
    written = write(tmp_path / "c")
    for name in ("model.safetensors", "training_state.pt"):
        file = written.path / name
        file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(ValueError, match="safetensors is damaged"):
        written.weights()
    with pytest.raises(ValueError, match=r"training_state\.pt is damaged"):
        written.training_state()


def test_a_newer_format_is_refused(tmp_path):
    written = write(tmp_path / "c")
    file = written.path / "metadata.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), "format_version": 99}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="newer"):
        load_checkpoint(written.path)


def test_weights_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        written = write(tmp_path / "c")
    finally:
        os.umask(before)
    modes = {file.stat().st_mode & 0o777 for file in written.path.iterdir()}
    assert modes == {0o644}


def test_an_edited_config_is_not_damage(tmp_path):
    written = write(tmp_path / "c", config={"a": 1})
    (written.path / "config.yaml").write_text("a: 1\nb: 22\n", encoding="utf-8")
    assert load_checkpoint(written.path).config.b == 22


def test_names_outside_ascii_do_not_depend_on_the_locale(tmp_path):
    """The files are UTF-8 on every system; an implicit encoding would be that of the locale."""
    names = ["Käse", "犬"]
    write(tmp_path / "c", config={"names": names}, metadata={"step": 1, "dataset": {"thing_classes": names}})
    assert (tmp_path / "c" / "config.yaml").read_bytes().decode("utf-8").count("犬") == 1
    checkpoint = load_checkpoint(tmp_path / "c")
    assert checkpoint.class_names == tuple(names) and list(checkpoint.config.names) == names


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 0xFF  # in the data of a tensor, which nothing else checks
    file.write_bytes(content)


def test_a_changed_byte_is_noticed_unless_hashes_are_not_verified(tmp_path):
    checkpoint = write(tmp_path / "c")
    flip_a_byte(checkpoint.path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its content has changed"):
        load_checkpoint(tmp_path / "c").weights()
    assert load_checkpoint(tmp_path / "c", verify=False).weights().keys() == {"w"}
    flip_a_byte(checkpoint.path / "training_state.pt")
    with pytest.raises(ValueError, match=r"training_state\.pt is damaged: its content has changed"):
        load_checkpoint(tmp_path / "c").training_state()


def test_checkpoints_without_hashes_load(tmp_path):
    checkpoint = write(tmp_path / "c")
    metadata = json.loads((checkpoint.path / "metadata.json").read_text(encoding="utf-8"))
    del metadata["sha256"]
    (checkpoint.path / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    assert load_checkpoint(checkpoint.path).weights().keys() == {"w"}
