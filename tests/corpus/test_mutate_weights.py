"""A small part of the corpus; ``nox -s corpus`` checks all of it."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def mutate_weights():
    path = Path(__file__).with_name("mutate_weights.py")
    spec = importlib.util.spec_from_file_location("mutate_weights", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate_weights"] = module  # dataclasses look the module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutate_weights"]


@pytest.fixture(scope="module")
def cases(mutate_weights):
    return list(mutate_weights.make_cases())


@pytest.fixture(scope="module")
def judge(mutate_weights, tmp_path_factory):
    judge = mutate_weights.Judge()
    mutate_weights.warm_up(tmp_path_factory.mktemp("warm"), judge)
    return judge


def test_broken_and_hostile_files_are_read_or_named(mutate_weights, cases, judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    assert len(cases) > 1000
    assert sum(case.name == "nothing changed" for case in cases) == len(mutate_weights.READERS)
    for i, case in enumerate(cases):
        if (
            i % 8 == 3
            or case.name == "nothing changed"
            or "bomb" in case.name
            or case.name.endswith(" alone")
        ):
            outcome, failures = mutate_weights.check(case, folder, judge)
            assert failures == [], (case.kind, case.name)
            assert case.name != "nothing changed" or outcome == "read"


def test_hostile_weights_are_refused(mutate_weights, cases, judge, tmp_path, monkeypatch):
    """Every kind ends in one line that names the file, as a pickle and as a file of torch."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    kinds = mutate_weights.make_hostile_pickles()
    hostile = [c for c in cases if c.name.startswith("opcodes") and "weights" in c.kind]
    assert len(kinds) > 50 and len(hostile) == 3 * len(kinds)
    for case in hostile:
        outcome, failures = mutate_weights.check(case, folder, judge)
        assert failures == [] and outcome != "read", (case.kind, case.name, outcome)


def test_the_judge_sees_code_and_files(mutate_weights, judge, tmp_path):
    with judge.watching():
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("x", encoding="utf-8")
    assert [violation.split()[0] for violation in judge.violations] == ["os.mkdir", "open"]
