"""IoU of rotated boxes."""

import pytest
import torch

from hydet.kernels import box_iou_rotated
from hydet.kernels.box_iou_rotated.op import _box_iou_rotated
from hydet.kernels.box_iou_rotated.reference import forward_reference

OP = "box_iou_rotated"


def make_boxes(count, *, extent=60.0, low=1.0, high=40.0):
    boxes = torch.rand(count, 5)
    boxes[:, :2] *= extent
    boxes[:, 2:4] = low + (high - low) * boxes[:, 2:4]
    boxes[:, 4] = boxes[:, 4] * 720 - 360
    return boxes


def turn(boxes, degrees):
    boxes = boxes.clone()
    boxes[:, 4] += degrees
    return boxes


def make_scenes():
    boxes = make_boxes(24)
    tiny = boxes * torch.tensor([1e-3, 1e-3, 1e-3, 1e-3, 1.0])
    far = tiny + torch.tensor([1e6, -1e6, 0, 0, 0])
    needles = boxes.clone()
    needles[:, 2] = 0.05
    upright = boxes * torch.tensor([1.0, 1, 1, 1, 0])
    return {
        "random": (boxes, make_boxes(19)),
        "identical": (boxes, boxes),
        "turned by 360": (boxes, turn(boxes, 360)),
        "turned by 180": (boxes, turn(boxes, -180)),
        "turned by 90": (boxes, turn(boxes, 90)[:, [0, 1, 3, 2, 4]]),
        "nearly coinciding": (boxes, turn(boxes, 1e-3)),
        "sides below 0.1 pixel": (tiny, tiny),
        "far from the origin": (far, far),
        "needles": (needles, needles),
        "upright": (upright, upright),
        "many turns": (boxes, turn(boxes, 3600)),
    }


@pytest.mark.parametrize("name", make_scenes())
def test_matches_definition(backend, forward, name):
    a, b = make_scenes()[name]
    iou, expected = forward(a, b), forward_reference(a, b)
    bound = torch.full_like(expected, 1e-6)
    if backend.startswith("triton"):  # the documented bound of the error of the kernel
        area = (a[:, 2] * a[:, 3])[:, None] + b[:, 2] * b[:, 3]
        longest = torch.maximum(a[:, None, 2:4].amax(-1), b[:, 2:4].amax(-1))
        bound = 1e-6 * longest**2 / (area / (1 + expected))
    assert ((iou - expected).abs() <= bound).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (130, 2)])
def test_sizes(forward, shape):
    a, b = make_boxes(shape[0]), make_boxes(shape[1])
    torch.testing.assert_close(forward(a, b), forward_reference(a, b), rtol=0, atol=1e-5)


def test_definition_of_known_overlaps():
    boxes = torch.tensor([[0.0, 0, 4, 2, 0], [1, 0, 4, 2, 180], [0, 0, 2, 4, 90], [9, 9, 1, 1, 0]])
    expected = torch.tensor([[1.0, 6 / 10, 1, 0]])
    torch.testing.assert_close(forward_reference(boxes[:1], boxes), expected)
    diamond = torch.tensor([[0.0, 0, 2, 2, 45]])  # its intersection with the square is a regular octagon
    octagon = 8 * (2**0.5 - 1)
    expected = torch.tensor([[octagon / (8 - octagon)]])
    torch.testing.assert_close(forward_reference(diamond, turn(diamond, -45)), expected)


def make_invalid_boxes():
    boxes = make_boxes(8)
    boxes[0] = torch.nan
    boxes[1, 2] = torch.inf
    boxes[2, 0] = -torch.inf
    boxes[3, 4] = torch.nan
    boxes[4, 2] = 0
    boxes[5, 3] = -1
    return boxes


def test_boxes_without_area_or_not_finite_overlap_nothing(forward):
    boxes = make_invalid_boxes()
    iou = forward(boxes, boxes)
    assert (iou[:6] == 0).all() and (iou[:, :6] == 0).all()
    torch.testing.assert_close(iou[6:, 6:].diagonal(), torch.ones(2))
    torch.testing.assert_close(iou, forward_reference(boxes, boxes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_extreme_sizes(forward, scale):
    boxes = make_boxes(10)
    scaled = boxes * torch.tensor([scale, scale, scale, scale, 1])
    torch.testing.assert_close(forward(scaled, scaled), forward_reference(boxes, boxes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_and_strides(forward, dtype):
    boxes = make_boxes(9).to(dtype)
    strided = boxes.t().contiguous().t()
    iou = forward(strided, boxes)
    assert iou.dtype == torch.float32
    torch.testing.assert_close(iou, forward_reference(boxes, boxes), rtol=0, atol=1e-5)


def test_symmetry_and_range():
    a, b = make_boxes(40), make_boxes(30)
    iou = box_iou_rotated(a, b)
    assert (iou >= 0).all() and (iou <= 1).all()
    torch.testing.assert_close(iou, box_iou_rotated(b, a).t(), rtol=0, atol=1e-6)
    shift = torch.tensor([17.0, -5.0, 0, 0, 0])
    torch.testing.assert_close(iou, box_iou_rotated(a + shift, b + shift), rtol=0, atol=1e-4)


def test_chunks_lose_no_pair(monkeypatch):
    from hydet.kernels.box_iou_rotated import candidates

    a, b = make_boxes(17), make_boxes(23)
    expected = box_iou_rotated(a, b)
    monkeypatch.setattr(candidates, "PAIRS_PER_CHUNK", 7)
    monkeypatch.setattr(candidates, "CIRCLE_TESTS_PER_CHUNK", 50)
    torch.testing.assert_close(box_iou_rotated(a, b), expected)


@pytest.mark.parametrize("name", make_scenes())
def test_may_exceed_loses_no_pair_and_rules_out_others(name):
    from hydet.kernels.box_iou_rotated.candidates import may_exceed
    from hydet.kernels.box_iou_rotated.overlap import prepare

    a, b = make_scenes()[name]
    iou = forward_reference(a, b)
    rows, columns = torch.ones_like(iou).nonzero().unbind(1)
    num_ruled_out = 0
    for threshold in (-1.5, 0.0, 0.3, 0.7, 1.0):
        mask = may_exceed(prepare(a)[:, rows], prepare(b)[:, columns], threshold).view_as(iou)
        assert mask[iou > threshold].all()
        num_ruled_out += int((~mask).sum())
    assert num_ruled_out > iou.numel()


def test_result_has_no_gradient():
    assert not box_iou_rotated(make_boxes(2).requires_grad_(), make_boxes(2)).requires_grad


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"boxes2 must be \(N, 5\)"):
        box_iou_rotated(make_boxes(2), torch.rand(2, 4))
    with pytest.raises(TypeError, match="floating point"):
        box_iou_rotated(make_boxes(2), torch.ones(2, 5, dtype=torch.int64))


def test_registration():
    torch.library.opcheck(_box_iou_rotated, (make_boxes(3), make_boxes(4)))


def test_compiles_and_exports():
    class Model(torch.nn.Module):
        def forward(self, a, b):
            return box_iou_rotated(a, b) * 2

    a, b = make_boxes(5), make_boxes(4)
    compiled = torch.compile(Model(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), 2 * box_iou_rotated(a, b))
    dynamic = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), (a, b), dynamic_shapes=(dynamic, dynamic))
    torch.testing.assert_close(program.module()(a[:3], b[:2]), 2 * box_iou_rotated(a[:3], b[:2]))
    assert [n for n in program.graph.nodes if "hydet.box_iou_rotated" in str(n.target)]
