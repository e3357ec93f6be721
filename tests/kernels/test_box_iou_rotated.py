"""Overlap of rotated boxes, against clipping one polygon by the other in float64."""

import math

import pytest
import torch

from hydet.kernels import box_iou_rotated
from hydet.kernels.box_iou_rotated.op import _box_iou_rotated
from hydet.kernels.box_iou_rotated.reference import box_iou_rotated_reference


def make_boxes(count, *, extent=60.0, low=1.0, high=40.0):
    numbers = torch.rand(count, 5)
    numbers[:, :2] *= extent
    numbers[:, 2:4] = low + (high - low) * numbers[:, 2:4]
    numbers[:, 4] = numbers[:, 4] * 720 - 360
    return numbers


def corners(box, origin):
    cx, cy, w, h, angle = box
    c, s = math.cos(math.radians(angle % 360)), math.sin(math.radians(angle % 360))
    return [
        (cx - origin[0] + c * u * w / 2 + s * v * h / 2, cy - origin[1] - s * u * w / 2 + c * v * h / 2)
        for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def clipped_iou(a, b):
    polygon, clip = corners(a, b), corners(b, b)
    for (x1, y1), (x2, y2) in zip(clip, clip[1:] + clip[:1]):
        side = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in polygon]
        result = []
        for k, (p, d) in enumerate(zip(polygon, side)):
            q, e = polygon[(k + 1) % len(polygon)], side[(k + 1) % len(polygon)]
            if d >= 0:
                result.append(p)
            if (d >= 0) != (e >= 0):
                result.append(tuple(m + d / (d - e) * (n - m) for m, n in zip(p, q)))
        polygon = result
        if not polygon:
            return 0.0
    area = abs(sum(p[0] * q[1] - q[0] * p[1] for p, q in zip(polygon, polygon[1:] + polygon[:1]))) / 2
    return area / (a[2] * a[3] + b[2] * b[3] - area)


def clipped_ious(a, b):
    return torch.tensor([[clipped_iou(p, q) for q in b.double().tolist()] for p in a.double().tolist()])


def turned(boxes, degrees):
    boxes = boxes.clone()
    boxes[:, 4] += degrees
    return boxes


def scenes():
    boxes = make_boxes(24)
    quarter = turned(boxes, 90)[:, [0, 1, 3, 2, 4]]
    tiny = boxes * torch.tensor([1e-3, 1e-3, 1e-3, 1e-3, 1.0])
    far = tiny + torch.tensor([1e6, -1e6, 0, 0, 0])
    needles = boxes.clone()
    needles[:, 2] = 0.05
    return {
        "random": (boxes, make_boxes(19)),
        "itself": (boxes, boxes),
        "turned 360": (boxes, turned(boxes, 360)),
        "turned 180": (boxes, turned(boxes, -180)),
        "turned 90": (boxes, quarter),
        "nearly coinciding": (boxes, turned(boxes, 1e-3)),
        "sides below 0.1 pixel": (tiny, tiny),
        "far away": (far, far),
        "needles": (needles, needles),
        "upright": (boxes * torch.tensor([1.0, 1, 1, 1, 0]), boxes * torch.tensor([1.0, 1, 1, 1, 0])),
        "many turns": (boxes, turned(boxes, 3600)),
    }


@pytest.mark.parametrize("name", scenes())
def test_reference_agrees_with_clipping(name):
    a, b = scenes()[name]
    torch.testing.assert_close(box_iou_rotated(a, b), clipped_ious(a, b), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", scenes())
def test_triton_keeps_its_error_bound(triton_device, name):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    a, b = scenes()[name]
    got = launch_box_iou_rotated(a.to(triton_device), b.to(triton_device)).cpu()
    expected = clipped_ious(a, b)
    area = (a[:, 2] * a[:, 3]).double()[:, None] + (b[:, 2] * b[:, 3]).double()
    longest = torch.maximum(a[:, None, 2:4].amax(-1), b[:, 2:4].amax(-1)).double()
    bound = 1e-6 * longest**2 / (area / (1 + expected))
    assert ((got - expected).abs() <= bound).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (1, 1), (130, 2)])
def test_triton_sizes(triton_device, shape):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    a, b = make_boxes(shape[0]), make_boxes(shape[1])
    got = launch_box_iou_rotated(a.to(triton_device), b.to(triton_device)).cpu()
    torch.testing.assert_close(got, box_iou_rotated_reference(a, b), rtol=0, atol=1e-5)


def bad_boxes():
    boxes = make_boxes(8)
    boxes[0] = torch.nan
    boxes[1, 2] = torch.inf
    boxes[2, 0] = -torch.inf
    boxes[3, 4] = torch.nan
    boxes[4, 2] = 0
    boxes[5, 3] = -1
    return boxes


def test_boxes_without_area_or_not_finite_overlap_nothing():
    boxes = bad_boxes()
    iou = box_iou_rotated(boxes, boxes)
    assert (iou[:6] == 0).all() and (iou[:, :6] == 0).all()
    torch.testing.assert_close(iou[6:, 6:].diagonal(), torch.ones(2))


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_extreme_sizes(triton_device, scale):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    a = make_boxes(10)
    scaled = a * torch.tensor([scale, scale, scale, scale, 1])
    expected = box_iou_rotated(a, a)
    torch.testing.assert_close(box_iou_rotated(scaled, scaled), expected, rtol=0, atol=1e-5)
    got = launch_box_iou_rotated(scaled.to(triton_device), scaled.to(triton_device)).cpu()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_triton_on_bad_boxes(triton_device):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    boxes = bad_boxes()
    got = launch_box_iou_rotated(boxes.to(triton_device), boxes.to(triton_device)).cpu()
    torch.testing.assert_close(got, box_iou_rotated_reference(boxes, boxes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_and_strides(triton_device, dtype):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    a = make_boxes(9).to(dtype)
    strided = a.t().contiguous().t()
    expected = clipped_ious(a, a)
    assert box_iou_rotated(strided, strided).dtype == torch.float32
    torch.testing.assert_close(box_iou_rotated(strided, strided), expected, rtol=0, atol=1e-6)
    got = launch_box_iou_rotated(strided.to(triton_device), a.to(triton_device)).cpu()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_symmetry_and_range():
    a, b = make_boxes(40), make_boxes(30)
    iou = box_iou_rotated(a, b)
    assert (iou >= 0).all() and (iou <= 1).all()
    torch.testing.assert_close(iou, box_iou_rotated(b, a).t(), rtol=0, atol=1e-6)
    moved = torch.tensor([17.0, -5.0, 0, 0, 0])
    torch.testing.assert_close(iou, box_iou_rotated(a + moved, b + moved), rtol=0, atol=1e-4)


def test_pairs_are_not_lost_between_chunks(monkeypatch):
    from hydet.kernels.box_iou_rotated import reference

    a, b = make_boxes(17), make_boxes(23)
    expected = box_iou_rotated(a, b)
    monkeypatch.setattr(reference, "PAIRS_PER_CHUNK", 7)
    monkeypatch.setattr(reference, "CIRCLE_TESTS_PER_CHUNK", 50)
    torch.testing.assert_close(box_iou_rotated(a, b), expected)


@pytest.mark.parametrize("name", scenes())
def test_may_exceed_loses_no_pair_and_rules_others_out(name):
    from hydet.kernels.box_iou_rotated.reference import may_exceed, prepare

    a, b = scenes()[name]
    iou = clipped_ious(a, b)
    rows, columns = torch.ones_like(iou).nonzero().unbind(1)
    ruled_out = 0
    for threshold in (-1.5, 0.0, 0.3, 0.7, 1.0):
        may = may_exceed(prepare(a)[:, rows], prepare(b)[:, columns], threshold).view_as(iou)
        assert may[iou > threshold].all()
        ruled_out += int((~may).sum())
    assert ruled_out > iou.numel()


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
