"""A small part of the corpus; ``nox -s corpus`` checks all of it."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def mutate_json():
    path = Path(__file__).with_name("mutate_json.py")
    spec = importlib.util.spec_from_file_location("mutate_json", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutate_json"] = module  # dataclasses look the module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutate_json"]


@pytest.fixture
def folder(tmp_path, mutate_json):
    mutate_json.write_images(tmp_path)
    (tmp_path / "good.json").write_bytes(mutate_json.encode(mutate_json.make_documents()["instances"]))
    return tmp_path


def test_good_files_have_no_problem(mutate_json, folder):
    for case in mutate_json.make_cases():
        if case.name == "nothing changed":
            assert mutate_json.check(case, folder) == [], case.kind
            path = folder / "case.json"
            messages = mutate_json.read(case.kind, path, folder, "drop")
            assert messages == []


def test_broken_files_are_read_or_named(mutate_json, folder):
    cases = list(mutate_json.make_cases())
    assert len(cases) > 1000
    failures = {case.name: mutate_json.check(case, folder) for case in cases[7::30]}
    assert not any(failures.values()), [f for f in failures.items() if f[1]]
