"""Overview of all ops and their backends."""

from pathlib import Path

import pytest
import torch

from hydet import kernels
from hydet.kernels import backends, choose, dispatch
from hydet.kernels.preferences import PREFERENCES

FOLDER = Path(kernels.__file__).parent


def test_every_op_is_listed_under_its_name():
    op_names = {path.parent.name for path in FOLDER.glob("*/op.py")}
    assert set(PREFERENCES) == op_names
    for op_name in op_names:
        assert hasattr(torch.ops.hydet, op_name)
        assert hasattr(kernels, op_name)


def test_preferences_name_implementations_that_exist():
    for op_name, preference in PREFERENCES.items():
        assert (FOLDER / op_name / "reference.py").is_file()
        for backend in {*preference.cpu, *preference.cuda}:
            assert (FOLDER / op_name / f"{backend}_impl.py").is_file()
        assert preference.has_torchvision == (FOLDER / op_name / "torchvision_impl.py").is_file()


def test_backends_lists_every_op_and_device(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    table = backends()
    assert set(table) == set(PREFERENCES)
    for row in table.values():
        assert set(row) == {"cpu", "cuda"}
        assert set(row.values()) <= set(dispatch.BACKENDS)


def test_backends_reports_a_forced_backend_that_cannot_run(monkeypatch):
    monkeypatch.setenv("HYDET_KERNELS", "triton")
    monkeypatch.setattr(dispatch, "triton_interprets", lambda: False)
    assert backends()["match_anchors"]["cpu"] == "unavailable"


def test_choose_follows_the_preference_of_the_op(monkeypatch):
    monkeypatch.delenv("HYDET_KERNELS", raising=False)
    assert choose("nms_padded", "cpu") == PREFERENCES["nms_padded"].choose("cpu")
    with pytest.raises(ValueError, match="unknown op 'nsm'"):
        choose("nsm", "cpu")
