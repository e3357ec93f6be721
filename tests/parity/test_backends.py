"""Parity cases that reach an op of ``hydet.kernels``, with every backend forced that runs on a CPU."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from hydet.kernels import dispatch, triton_available
from hydet.kernels.preferences import PREFERENCES

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, in the interpreter
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the case files import their framework by name

import parity  # noqa: E402

for file in sorted(HERE.glob("cases_*.py")):
    importlib.import_module(file.stem)

CASE_OF_OP = {  # a case per op, to check that the cases do reach the ops
    "box_iou_rotated": "ops/rotated_iou/random",
    "match_anchors": "rpn/labels_default",
    "nms_padded": "ops/proposals/find_top",
    "nms_rotated": "ops/nms_rotated/batched",
    "paste_masks": "ops/paste_masks/binary",
    "roi_align": "ops/roi_pooler/levels",
    "roi_align_rotated": "ops/roi_align_rotated/sampling_0",
    "sigmoid_focal_loss": "ops/losses/focal",
}
OPS = tuple(
    f"ops/{name}/"
    for name in (
        "detections", "losses", "masks", "nms", "nms_rotated", "paste_masks", "postprocess", "proposals", "roi_align",
        "roi_align_rotated", "roi_pooler", "rotated_iou",
    )
)  # fmt: skip
# Cases with ops that torchvision has. All other ops run the torch backend on a CPU anyway, as in test_parity.py.
IN_TORCHVISION = ("ops/proposals/", "ops/roi_align/", "ops/roi_pooler/", "roi_heads/", "tta/")
CASES_OF_BACKEND = {
    "torch": (*IN_TORCHVISION, "rcnn/", "retinanet/eval", "rpn/"),
    "torchvision": IN_TORCHVISION,
    # Without the cases that pool for whole heads: the interpreter starts one program per region, which takes up to 15 s
    # per case. All 182 cases that reach an op passed in a manual run.
    "triton": (*OPS, "retinanet/", "rpn/", "rrpn/"),
}


def runs():
    for backend, prefixes in CASES_OF_BACKEND.items():
        for name in sorted(parity.CASES):
            if name.startswith(prefixes):
                yield pytest.param(backend, name, id=f"{backend}-{name}")


def compare(name):
    golden = dict(np.load(HERE / "goldens" / f"{name}.npz"))
    seed = int(golden.pop("seed|"))
    return parity.compare(name, parity.run(name, parity.Library("hydet"), seed), golden)


@pytest.fixture
def force(monkeypatch):
    def force(backend):
        if backend == "triton" and not (triton_available() and dispatch.triton_interprets()):
            pytest.skip("kernels are not interpreted here")
        monkeypatch.setenv(dispatch.ENVIRONMENT_VARIABLE, backend)

    return force


@pytest.mark.parametrize(("backend", "name"), list(runs()))
def test_backend_matches_the_reference(force, backend, name):
    force(backend)
    assert compare(name) == []


def test_every_op_has_a_case():
    # The exact form, which parity checks, never uses Winograd's algorithm.
    assert set(CASE_OF_OP) == set(PREFERENCES) - {"winograd_conv2d"}


@pytest.mark.parametrize(("op_name", "name"), list(CASE_OF_OP.items()))
def test_case_reaches_the_op(monkeypatch, op_name, name):
    reached = set()
    choose = dispatch.Preference.choose

    def recording(preference, device):
        reached.add(preference.op_name)
        return choose(preference, device)

    monkeypatch.setattr(dispatch.Preference, "choose", recording)
    assert compare(name) == []
    assert op_name in reached
