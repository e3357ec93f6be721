"""Options that all commands share, and the state of the process after a command."""

import pytest

from hydet.cli import train
from hydet.cli.command import printable, run_command


def test_config_is_printed_and_nothing_runs(command, tmp_path):
    out = command("train", "--cfg", "job", "--resolve", f"output_dir={tmp_path}/run")
    assert "num_classes: 3" in out and "${" not in out
    assert not (tmp_path / "run").exists()
    for name in ("evaluate", "predict"):
        assert "output_dir" in command(name, "--cfg", "job", "checkpoint=x", f"output_dir={tmp_path}/run")


def test_a_command_restores_the_environment(monkeypatch):
    import os
    import sys

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv)
    assert train.main(["optimizer.lrr=1"]) == 1
    assert "HYDRA_FULL_ERROR" not in os.environ and sys.argv == before


def test_tracebacks_on_request(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="lrr"):
        train.main(["optimizer.lrr=1"])


def test_control_characters_of_names_do_not_reach_the_terminal():
    assert printable("a\x1b[2Jb\x07\u202e") == "a\\x1b[2Jb\\x07\\u202e"
    assert printable("naïve 猫 [/large]") == "naïve 猫 [/large]"


def test_the_death_of_a_worker_during_a_step_ends_in_one_line(tmp_path, capsys):
    def step(config, output_dir):
        raise RuntimeError("DataLoader worker (pid 42) is killed by signal: Killed. ")

    assert run_command(step, config_name="train", arguments=[f"output_dir={tmp_path}/run"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the worker process 42, which loads images, was killed")
    assert error.count("\n") == 1 and "num_workers=0" in error
