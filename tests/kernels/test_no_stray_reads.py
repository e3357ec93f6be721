"""No kernel reads beside its inputs: they are fenced by values that would spoil every result."""

import pytest
import torch

from hydet.kernels.box_iou_rotated.reference import box_iou_rotated_reference
from hydet.kernels.match.reference import match_anchors_reference
from hydet.kernels.nms.reference import nms_padded_reference
from hydet.kernels.nms_rotated.reference import nms_rotated_reference
from hydet.kernels.paste_masks.reference import paste_masks_reference
from hydet.kernels.sigmoid_focal_loss.reference import (
    sigmoid_focal_loss_backward_reference,
    sigmoid_focal_loss_reference,
)

FENCE = 4096


def fenced(tensor, device):
    """The same numbers with NaN, or absurd integers, on both sides in memory."""
    bad = torch.nan if tensor.is_floating_point() else 1 << 40
    buffer = torch.full((tensor.numel() + 2 * FENCE,), bad, dtype=tensor.dtype)
    buffer[FENCE:-FENCE] = tensor.flatten()
    return buffer.to(device)[FENCE : FENCE + tensor.numel()].view(tensor.shape)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, check_device=False)


def rotated(count):
    return torch.rand(count, 5) * torch.tensor([40.0, 40, 15, 15, 360]) + torch.tensor([0.0, 0, 3, 3, 0])


def upright(count):
    corner = torch.rand(count, 2) * 40
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * 15], dim=1)


def test_box_iou_rotated(triton_device):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_box_iou_rotated

    a, b = rotated(37), rotated(5)
    found = launch_box_iou_rotated(fenced(a, triton_device), fenced(b, triton_device))
    assert_same(found, box_iou_rotated_reference(a, b))


def test_nms_rotated(triton_device):
    from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated

    boxes, scores, groups = rotated(45), torch.rand(45), torch.randint(0, 3, (45,))
    found = launch_nms_rotated(*(fenced(t, triton_device) for t in (boxes, scores, groups)), 0.2)
    assert found.tolist() == nms_rotated_reference(boxes, scores, groups, 0.2).tolist()


def test_nms(triton_device):
    from hydet.kernels.nms.triton_impl import launch_nms_padded

    boxes, scores, groups = upright(90).view(2, 45, 4), torch.rand(2, 45), torch.randint(0, 2, (2, 45))
    found = launch_nms_padded(*(fenced(t, triton_device) for t in (boxes, scores, groups)), None, 0.2, 45)
    for a, b in zip(found, nms_padded_reference(boxes, scores, groups, None, 0.2, 45), strict=True):
        assert a.tolist() == b.tolist()


def test_match(triton_device):
    from hydet.kernels.match.triton_impl import launch_match_anchors

    anchors, truths, settings = upright(301), upright(7), ([0.3, 0.5], [0, -1, 1], True)
    found = launch_match_anchors(fenced(anchors, triton_device), fenced(truths, triton_device), *settings)
    for a, b in zip(found, match_anchors_reference(anchors, truths, *settings), strict=True):
        assert a.tolist() == b.tolist()


def test_sigmoid_focal_loss(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import (
        launch_sigmoid_focal_loss,
        launch_sigmoid_focal_loss_backward,
    )

    levels, targets = [torch.randn(2, n, 5) for n in (31, 7)], torch.randint(-1, 6, (2, 38))
    moved = [fenced(level, triton_device) for level in levels], fenced(targets, triton_device), 0.25, 2.0
    assert_same(launch_sigmoid_focal_loss(*moved), sigmoid_focal_loss_reference(levels, targets, 0.25, 2.0))
    one = torch.ones(())
    found = launch_sigmoid_focal_loss_backward(one.to(triton_device), *moved)
    expected = sigmoid_focal_loss_backward_reference(one, levels, targets, 0.25, 2.0)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


def test_paste_masks(triton_device):
    from hydet.kernels.paste_masks.triton_impl import launch_paste_masks

    masks, boxes = torch.rand(3, 7, 5), upright(3)
    found = launch_paste_masks(fenced(masks, triton_device), fenced(boxes, triton_device), 41, 53, -1.0)
    expected = paste_masks_reference(masks, boxes, 41, 53, -1.0)
    assert (
        found.cpu().int() - expected.int()
    ).abs().max() <= 1  # a value beside a multiple of 1/255 rounds either way


@pytest.mark.parametrize("turned", [False, True])
def test_roi_align(triton_device, turned):
    from hydet.kernels.roi_align.triton_impl import backward_regions, forward_regions

    maps = [torch.randn(2, 5, 13, 17), torch.randn(2, 5, 7, 9)]
    image, levels = torch.arange(6)[:, None] % 2, torch.tensor([0, 0, 1, 1, 0, 1])
    boxes = rotated(6) if turned else upright(6) - 6  # some reach over an edge, or lie along it
    rois = torch.cat([image, boxes], dim=1)
    grad = torch.randn(6, 5, 3, 2)
    settings = {"aligned": True, "rotated": turned}

    def run(wrap):
        out = forward_regions(
            [wrap(m) for m in maps], wrap(rois), wrap(levels), (3, 2), (0.5, 0.25), 0, **settings
        )
        grads = [
            backward_regions(
                wrap(grad), wrap(rois), wrap(levels), [m.shape for m in maps], (0.5, 0.25), 0,
                deterministic=deterministic, **settings,
            )
            for deterministic in (False, True)
        ]  # fmt: skip
        return [out, *grads[0], *grads[1]]

    plain = run(lambda t: t.to(triton_device))
    for a, b in zip(run(lambda t: fenced(t, triton_device)), plain, strict=True):
        assert torch.isfinite(a).all()
        assert_same(a, b)
