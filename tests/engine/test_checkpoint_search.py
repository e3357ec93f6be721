import os
import shutil

import pytest
import torch

from hydet.engine import find_last_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from hydet.engine.checkpoint_search import (
    find_checkpoint_to_resume,
    list_step_folders,
    restore_replaced_checkpoints,
    verifies_hashes,
)
from hydet.engine.folder_links import link_folder


def write(folder, step=1, **options):
    metadata = options.pop("metadata", {"step": step})
    weights, state = {"w": torch.arange(3.0)}, {"step": step}
    return save_checkpoint(folder, weights=weights, training_state=state, metadata=metadata, **options)


def write_run(run, steps=(1, 2)):
    """Write checkpoints as a run does; return their paths."""
    paths = [write(run / "checkpoints" / f"step_{step:08d}", step=step).path for step in steps]
    link_folder(run / "checkpoints" / "last", paths[-1])
    return paths


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 0xFF  # in the data of a tensor, which nothing else checks
    file.write_bytes(content)


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_checkpoint(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="contains no checkpoint"):
        load_checkpoint(tmp_path)
    assert find_last_checkpoint(tmp_path / "x") is None
    (tmp_path / "file.bin").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="is a file"):
        load_checkpoint(tmp_path / "file.bin")


@pytest.mark.parametrize("links", [True, False])
def test_last_and_best_with_and_without_links(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "symlink", lambda *_, **__: (_ for _ in ()).throw(OSError("not allowed")))
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        write(folder / f"step_{step}", step=step)
        link_folder(folder / "last", folder / f"step_{step}")
    link_folder(folder / "best", folder / "step_1")
    assert load_checkpoint(folder / "best").step == 1
    assert load_checkpoint(tmp_path).step == load_checkpoint(folder).step == 2
    assert load_checkpoint(folder / "last").step == 2
    assert sorted(p.name for p in folder.iterdir()) == ["best", "last", "step_1", "step_2"]


def test_a_dangling_link_falls_back_to_the_newest(tmp_path):
    for step in (3, 5):
        write(tmp_path / f"step_{step}", step=step)
    link_folder(tmp_path / "last", tmp_path / "step_9")
    assert find_last_checkpoint(tmp_path).name == "step_5"


def test_the_order_is_that_of_steps_whatever_the_clock_and_the_link_say(tmp_path):
    for step, time in ((3, 2000.0), (5, 1000.0)):
        write(tmp_path / f"step_{step}", step=step, metadata={"step": step, "saved_at": time})
    link_folder(tmp_path / "last", tmp_path / "step_3")  # killed before it updated the link
    assert [c.step for c in list_checkpoints(tmp_path)] == [3, 5]
    assert find_last_checkpoint(tmp_path).name == "step_5"


def test_a_run_continues_from_its_last_or_a_named_checkpoint(tmp_path):
    run = tmp_path / "run"
    assert find_checkpoint_to_resume("auto", run) is None
    first, second = (write(run / "checkpoints" / f"step_{step:08d}", step=step) for step in (1, 2))
    for resume in ("auto", True):
        assert find_checkpoint_to_resume(resume, run).path == second.path
    assert find_checkpoint_to_resume(first.path, run).path == first.path
    assert find_checkpoint_to_resume(str(first.path), tmp_path).step == 1
    for resume in (False, None):
        assert find_checkpoint_to_resume(resume, run) is None
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_checkpoint_to_resume(tmp_path / "missing", run)


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.pt", "metadata.json"])
def test_a_run_falls_back_to_the_checkpoint_before_a_damaged_one_and_says_so(name, tmp_path):
    first, second = (write(tmp_path / "checkpoints" / f"step_{step:08d}", step=step) for step in (1, 2))
    if name == "metadata.json":
        (second.path / name).write_text('{"format": "of another program"}', encoding="utf-8")
    else:
        flip_a_byte(second.path / name)
    lines = []
    assert find_checkpoint_to_resume("auto", tmp_path, report=lines.append).path == first.path
    assert len(lines) == 1 and str(second.path) in lines[0] and f"continuing from {first.path}" in lines[0]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path):
    checkpoint = write(tmp_path / "checkpoints" / "step_00000001")
    flip_a_byte(checkpoint.path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is intact: .* starts a new run"):
        find_checkpoint_to_resume("auto", tmp_path)
    assert checkpoint.path.is_dir()


@pytest.mark.parametrize("copy", ["links followed", "links left out", "link as text", "link damaged"])
def test_a_copy_of_a_run_without_links_has_the_same_checkpoints(copy, tmp_path):
    write_run(tmp_path / "run", steps=(1, 2))
    link_folder(tmp_path / "run" / "checkpoints" / "best", tmp_path / "run" / "checkpoints" / "step_00000001")
    run = tmp_path / "copy"
    shutil.copytree(tmp_path / "run", run, symlinks=copy != "links followed")
    folder = run / "checkpoints"
    if copy != "links followed":
        (folder / "last").unlink()
    if copy.startswith("link "):
        (folder / "last").write_bytes(b"step_00000002" if copy == "link as text" else b"\0\xff" * 5000)
    for path in (run, folder, folder / "last"):
        assert load_checkpoint(path).path == folder / "step_00000002"
        assert find_checkpoint_to_resume(str(path), tmp_path / "other").path == folder / "step_00000002"
    assert load_checkpoint(folder / "best").step == 1
    assert find_checkpoint_to_resume("auto", run).path == folder / "step_00000002"


def test_a_copy_of_the_last_checkpoint_alone_can_be_named(tmp_path):
    write_run(tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "checkpoints" / "last", tmp_path / "elsewhere" / "last")
    assert load_checkpoint(tmp_path / "elsewhere" / "last").step == 2


def test_last_means_the_newest_checkpoint_even_if_the_link_lags_behind(tmp_path):
    first, second = write_run(tmp_path)
    link_folder(first.parent / "last", first)
    assert load_checkpoint(first.parent / "last").path == second
    assert find_checkpoint_to_resume(first.parent / "last", tmp_path / "new").path == second


def test_a_named_run_falls_back_to_its_last_intact_checkpoint(tmp_path):
    first, second = write_run(tmp_path)
    flip_a_byte(second / "model.safetensors")
    lines = []
    for path in (tmp_path, first.parent, first.parent / "last"):
        assert find_checkpoint_to_resume(path, tmp_path / "new", report=lines.append).path == first
    assert len(lines) == 3
    with pytest.raises(ValueError, match="is damaged"):
        find_checkpoint_to_resume(second, tmp_path / "new").weights()


def test_a_replaced_checkpoint_is_found_and_gets_its_name_back(tmp_path):
    """As after a kill between the two renames of a replacement."""
    path = write_run(tmp_path, steps=(7,))[0]
    renamed = path.with_name(f".replaced-{path.name}-0123abcd")
    path.rename(renamed)
    assert find_last_checkpoint(tmp_path) == renamed
    for name in (tmp_path, path, path.parent / "last"):
        assert load_checkpoint(name).step == 7
    assert find_checkpoint_to_resume("auto", tmp_path).step == 7
    restore_replaced_checkpoints(tmp_path)
    assert find_last_checkpoint(tmp_path) == path and not renamed.exists()


def test_a_complete_replacement_wins_over_what_it_replaced(tmp_path):
    path = write_run(tmp_path, steps=(7,))[0]
    renamed = path.with_name(f".replaced-{path.name}-0123abcd")
    shutil.copytree(path, renamed)
    assert [c.path for c in list_checkpoints(tmp_path)] == [path]
    restore_replaced_checkpoints(tmp_path)
    assert path.is_dir() and renamed.is_dir()
    (path / "model.safetensors").write_bytes(b"")  # a power failure lost the content of the new file
    assert [c.path for c in list_checkpoints(tmp_path)] == [renamed]
    restore_replaced_checkpoints(tmp_path)
    assert [c.path for c in list_checkpoints(tmp_path)] == [path]
    assert path.with_name(f"set_aside_{path.name}").is_dir()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"step": 9}',
        b'{"format": "other"}',
        None,
    ],
)
def test_one_foreign_metadata_file_does_not_hide_the_other_checkpoints(content, tmp_path):
    first, second = write_run(tmp_path)
    (second / "metadata.json").unlink()
    if content is None:
        (second / "metadata.json").mkdir()
    else:
        (second / "metadata.json").write_bytes(content)
    (first.parent / "step_notes.txt").write_text("files are not checkpoints", encoding="utf-8")
    assert [c.path for c in list_checkpoints(tmp_path)] == [first]
    for path in (tmp_path, first.parent, first.parent / "last"):
        assert load_checkpoint(path).path == first
    assert find_checkpoint_to_resume("auto", tmp_path).path == first
    damaged = list_step_folders(tmp_path)[-1]
    assert (damaged.path, damaged.step, damaged.checkpoint) == (second, 2, None) and str(
        second
    ) in damaged.fault


def test_a_folder_of_damaged_checkpoints_says_what_is_wrong_with_the_newest(tmp_path):
    for path in write_run(tmp_path):
        (path / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint: .*step_00000002.*damaged"):
        load_checkpoint(tmp_path / "checkpoints")


def test_steps_are_compared_as_numbers(tmp_path):
    for step in (9, 10):
        write(tmp_path / f"step_{step}", step=step)
    (tmp_path / "step_10" / "metadata.json").write_text("{", encoding="utf-8")
    lines = []
    assert find_checkpoint_to_resume("auto", tmp_path, report=lines.append).step == 9
    assert len(lines) == 1 and "step_10" in lines[0]


def test_hashes_are_verified_unless_switched_off(tmp_path):
    path = write_run(tmp_path)[-1]
    flip_a_byte(path / "model.safetensors")
    for verify in ("full", True):
        assert verifies_hashes(verify) is True
        with pytest.raises(ValueError, match="content has changed"):
            load_checkpoint(path, verify=verify).weights()
    for verify in ("off", False):
        assert load_checkpoint(path, verify=verify).weights().keys() == {"w"}
        assert find_checkpoint_to_resume("auto", tmp_path, verify=verify).path == path
    with pytest.raises(ValueError, match="verify must be full or off, got 'fast'"):
        load_checkpoint(path, verify="fast")
