"""The page of each command behind ``--help``."""

import shlex

import pytest

from hydet.cli import benchmark, evaluate, export, predict, train
from hydet.cli.help_page import USES, help_page

MAINS = {
    "train": train.main,
    "evaluate": evaluate.main,
    "predict": predict.main,
    "export": export.main,
    "benchmark": benchmark.main,
}


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", MAINS)
def test_help_prints_the_page_of_the_command(name, flag, capsys):
    assert MAINS[name]([flag]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == help_page(name)
    assert printed.count(f"python -m src.{name}") == 10
    assert "--hydra-help" in printed and len(printed.splitlines()) < 70


def test_only_the_groups_that_a_command_reads_are_listed():
    listed = {
        name: [line for line in help_page(name).splitlines() if line.startswith("  ")] for name in MAINS
    }
    groups = {name: {line.split(":")[0].strip() for line in lines} for name, lines in listed.items()}
    assert {"model", "backbone", "data", "optimizer", "experiment"} <= groups["train"]
    assert {"tta", "evaluators", "data"} <= groups["evaluate"] and "optimizer" not in groups["evaluate"]
    assert not {"model", "backbone", "data", "optimizer", "trainer", "schedule"} & groups["predict"]
    assert "tta" in groups["predict"]
    assert "mask_rcnn_fpn" in help_page("train") and "Groups" not in help_page("export")


@pytest.mark.parametrize(("name", "arguments"), [(name, use) for name in USES for use, _ in USES[name]])
def test_shown_commands_compose(name, arguments, capsys):
    typed = shlex.split(arguments)
    shown = typed if "--cfg" in typed else [*typed, "--cfg", "job"]
    shown = [argument for argument in shown if argument != "-m"]
    shown = [a.split(",")[0] if a.startswith("optimizer.lr=") else a for a in shown]
    assert MAINS[name](shown) == 0, capsys.readouterr().err
