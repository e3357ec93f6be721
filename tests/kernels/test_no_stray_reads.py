"""Kernels read only their inputs: values next to the inputs in memory, which would corrupt any result, have no effect."""

import pytest
import torch

from hydet.kernels.box_iou_rotated import torch_impl as box_iou_rotated
from hydet.kernels.match_anchors import torch_impl as match_anchors
from hydet.kernels.nms_padded import torch_impl as nms_padded
from hydet.kernels.nms_rotated import torch_impl as nms_rotated
from hydet.kernels.paste_masks import torch_impl as paste_masks
from hydet.kernels.sigmoid_focal_loss import torch_impl as sigmoid_focal_loss

pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy, in the interpreter
FENCE = 4096


def fenced(tensor, device):
    """Return the same values with NaN, or huge integers, before and after them in memory."""
    fence_value = torch.nan if tensor.is_floating_point() else 1 << 40
    buffer = torch.full((tensor.numel() + 2 * FENCE,), fence_value, dtype=tensor.dtype)
    buffer[FENCE:-FENCE] = tensor.flatten()
    return buffer.to(device)[FENCE : FENCE + tensor.numel()].view(tensor.shape)


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, check_device=False)


def rotated_boxes(count):
    return torch.rand(count, 5) * torch.tensor([40.0, 40, 15, 15, 360]) + torch.tensor([0.0, 0, 3, 3, 0])


def upright_boxes(count):
    corner = torch.rand(count, 2) * 40
    return torch.cat([corner, corner + 2 + torch.rand(count, 2) * 15], dim=1)


def test_box_iou_rotated(triton_device):
    from hydet.kernels.box_iou_rotated.triton_impl import launch_forward

    a, b = rotated_boxes(37), rotated_boxes(5)
    iou = launch_forward(fenced(a, triton_device), fenced(b, triton_device))
    assert_close(iou, box_iou_rotated.forward_torch(a, b))


def test_nms_rotated(triton_device):
    from hydet.kernels.nms_rotated.triton_impl import launch_forward

    args = rotated_boxes(45), torch.rand(45), torch.randint(0, 3, (45,))
    keep = launch_forward(*(fenced(t, triton_device) for t in args), 0.2)
    assert keep.tolist() == nms_rotated.forward_torch(*args, 0.2).tolist()


def test_nms_padded(triton_device):
    from hydet.kernels.nms_padded.triton_impl import launch_forward

    args = upright_boxes(90).view(2, 45, 4), torch.rand(2, 45), torch.randint(0, 2, (2, 45))
    result = launch_forward(*(fenced(t, triton_device) for t in args), None, 0.2, 45)
    assert_close(result, nms_padded.forward_torch(*args, None, 0.2, 45))


def test_match_anchors(triton_device):
    from hydet.kernels.match_anchors.triton_impl import launch_forward

    anchors, gt_boxes, settings = upright_boxes(301), upright_boxes(7), ([0.3, 0.5], [0, -1, 1], True)
    result = launch_forward(fenced(anchors, triton_device), fenced(gt_boxes, triton_device), *settings)
    assert_close(result, match_anchors.forward_torch(anchors, gt_boxes, *settings))


def test_sigmoid_focal_loss(triton_device):
    from hydet.kernels.sigmoid_focal_loss.triton_impl import launch_backward, launch_forward

    levels, targets = [torch.randn(2, n, 5) for n in (31, 7)], torch.randint(-1, 6, (2, 38))
    args = [fenced(level, triton_device) for level in levels], fenced(targets, triton_device), 0.25, 2.0
    assert_close(launch_forward(*args), sigmoid_focal_loss.forward_torch(levels, targets, 0.25, 2.0))
    grad = torch.ones(())
    grads = launch_backward(grad.to(triton_device), *args)
    assert_close(grads, sigmoid_focal_loss.backward_torch(grad, levels, targets, 0.25, 2.0))


def test_paste_masks(triton_device):
    from hydet.kernels.paste_masks.triton_impl import launch_forward

    masks, boxes = torch.rand(3, 7, 5), upright_boxes(3)
    pasted = launch_forward(fenced(masks, triton_device), fenced(boxes, triton_device), 41, 53, -1.0)
    expected = paste_masks.forward_torch(masks, boxes, 41, 53, -1.0)
    # A value next to a multiple of 1 / 255 may round either way.
    assert (pasted.cpu().int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("rotated", [False, True])
def test_region_pooling(triton_device, rotated):
    from hydet.kernels.region_pooling.triton_backward import launch_backward
    from hydet.kernels.region_pooling.triton_forward import launch_forward

    maps = [torch.randn(2, 5, 13, 17), torch.randn(2, 5, 7, 9)]
    image, levels = torch.arange(6)[:, None] % 2, torch.tensor([0, 0, 1, 1, 0, 1])
    boxes = rotated_boxes(6) if rotated else upright_boxes(6) - 6  # some of them cross or touch an edge
    rois = torch.cat([image, boxes], dim=1)
    grad = torch.randn(6, 5, 3, 2)
    settings = {"aligned": True, "rotated": rotated}

    def run(wrap):
        pooled = launch_forward(
            [wrap(m) for m in maps], wrap(rois), wrap(levels), (3, 2), (0.5, 0.25), 0, **settings
        )
        grads = [
            launch_backward(
                wrap(grad), wrap(rois), wrap(levels), [m.shape for m in maps], (0.5, 0.25), 0,
                deterministic=deterministic, **settings,
            )
            for deterministic in (False, True)
        ]  # fmt: skip
        return [pooled, *grads[0], *grads[1]]

    expected = run(lambda t: t.to(triton_device))
    result = run(lambda t: fenced(t, triton_device))
    assert all(torch.isfinite(tensor).all() for tensor in result)
    assert_close(result, expected)
