"""Commands whose output cannot be written: one line that names the file and the cause, and what is left."""

import errno
import json
import os
import shutil
import sys

import pytest

from hydet.cli import evaluate, predict, train
from hydet.engine import find_last_checkpoint, load_checkpoint
from hydet.engine.callbacks import JsonlLog
from hydet.files import atomic_writes
from hydet.runs import result_journal


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disk_full_for(monkeypatch, *names):
    """Let files with these parts in their names be written only on another disk."""
    real = atomic_writes.os.replace

    def replace(source, target):
        if any(name in str(target) for name in names):
            full()
        real(source, target)

    monkeypatch.setattr(atomic_writes.os, "replace", replace)


class ClosedPipe:
    encoding = "utf-8"

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    flush = isatty = lambda self: False


@pytest.fixture
def evaluation(trained, tmp_path):
    return [f"checkpoint={trained}", f"output_dir={tmp_path}/out", "num_workers=0"]


@pytest.fixture
def prediction(trained, coco_folder, tmp_path):
    return [f"checkpoint={trained}", f"input={coco_folder}/val", f"output_dir={tmp_path}/out"]


@pytest.mark.parametrize("file", ["metrics.json", "results.json"])
def test_evaluate_on_a_full_disk(file, evaluation, failure, tmp_path, monkeypatch):
    disk_full_for(monkeypatch, file)
    line = failure("evaluate", *evaluation)
    assert line.startswith(f"error: cannot write {tmp_path}/out/{file}: No space left on device")


@pytest.mark.parametrize("file", ["results.json", "images.json"])
def test_predict_on_a_full_disk_keeps_its_journal(file, prediction, failure, tmp_path, monkeypatch):
    disk_full_for(monkeypatch, file)
    line = failure("predict", *prediction)
    assert line.startswith(f"error: cannot write {tmp_path}/out/{file}: No space left on device")
    assert len((tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_predict_writes_the_results_before_an_image_that_does_not_fit(
    prediction, failure, tmp_path, monkeypatch
):
    disk_full_for(monkeypatch, "000002.png", "000001.png")
    line = failure("predict", *prediction)
    assert "pictures" in line and f"the results of 1 images are in {tmp_path}/out" in line
    assert len(json.loads((tmp_path / "out" / "images.json").read_text(encoding="utf-8"))) == 1


def test_a_limit_of_the_file_size_stops_a_journal(tmp_path, limit_file_size):
    from hydet.files import WriteError

    journal = result_journal.ResultJournal(tmp_path / "results.jsonl")
    with pytest.raises(WriteError, match=r"results\.jsonl: File too large"), limit_file_size(100):
        journal.append({"detections": ["x" * 200]})
    journal.remove()


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_a_closed_output_is_status_141(name, evaluation, prediction, monkeypatch, capsys):
    command, options = {"evaluate": (evaluate, evaluation), "predict": (predict, prediction)}[name]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ClosedPipe())
        assert command.main(options) == 141
    assert capsys.readouterr().err == "error: standard output was closed before the command ended\n"


def test_the_help_page_may_be_read_in_part(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ClosedPipe())
        assert train.main(["--help"]) == 141
    assert capsys.readouterr().err == ""


def test_train_on_a_full_disk_says_how_to_go_on(shapes_overrides, failure, tmp_path, monkeypatch):
    monkeypatch.setattr(JsonlLog, "log_training", full)
    line = failure("train", *shapes_overrides, "logger=default", f"output_dir={tmp_path}/run")
    assert "No space left on device" in line and "continues from step_" in line
    assert find_last_checkpoint(tmp_path / "run") is not None


def test_hashes_can_be_left_unchecked(trained, failure, command, tmp_path):
    checkpoint = shutil.copytree(load_checkpoint(trained).path, tmp_path / "checkpoint")
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    options = [f"checkpoint={checkpoint}", f"output_dir={tmp_path}/out", "num_workers=0"]
    assert f"{file} is damaged: its content has changed" in failure("evaluate", *options)
    command("evaluate", *options, "verify=off")
    assert "verify must be full or off, got 'fast'" in failure("evaluate", *options, "verify=fast")
