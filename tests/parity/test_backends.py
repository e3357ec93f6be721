"""The stored cases that reach an op of ``hydet.kernels``, with every backend forced that runs on a CPU."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from hydet.kernels import dispatch, triton_available

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # cases import their framework by name

import parity  # noqa: E402

for file in sorted(HERE.glob("cases_*.py")):
    importlib.import_module(file.stem)

REACHED_BY = {  # one case an op, to see that cases do reach them
    "box_iou_rotated": "ops/rotated_iou/random",
    "match": "rpn/labels_default",
    "nms": "ops/proposals/find_top",
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
# Cases whose ops torchvision has; of the others the reference is what runs on a CPU anyway, as in test_parity.py.
IN_TORCHVISION = ("ops/proposals/", "ops/roi_align/", "ops/roi_pooler/", "roi_heads/", "tta/")
AREAS = {
    "reference": (*IN_TORCHVISION, "rcnn/", "retinanet/eval", "rpn/"),
    "torchvision": IN_TORCHVISION,
    # Without what pools for whole heads: the interpreter starts a program for each region, up to 15 s for one case. All
    # 182 cases that reach an op passed, tried by hand.
    "triton": (*OPS, "retinanet/", "rpn/", "rrpn/"),
}


def runs():
    for backend, areas in AREAS.items():
        for name in sorted(parity.CASES):
            if name.startswith(areas):
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
        monkeypatch.setenv(dispatch.VARIABLE, backend)

    return force


@pytest.mark.parametrize(("backend", "name"), runs())
def test_same_numbers_as_the_reference(force, backend, name):
    force(backend)
    assert compare(name) == []


@pytest.mark.parametrize(("op", "name"), REACHED_BY.items())
def test_the_op_is_reached(monkeypatch, op, name):
    asked = set()

    def watched(op_name, device):
        asked.add(op_name)
        return dispatch.choose(op_name, device)

    module = importlib.import_module(f"hydet.kernels.{op}.op")
    monkeypatch.setattr(module, "choose", watched)
    assert compare(name) == []
    assert asked == {op}
