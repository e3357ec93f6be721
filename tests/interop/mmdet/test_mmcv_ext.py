"""Stand-ins for mmcv's compiled operators against torch and torchvision."""

import sys
from types import ModuleType

import pytest
import torch
import torchvision
from torch.nn import functional as F

from hydet.interop.mmdet import mmcv_ext
from hydet.interop.mmdet.mmcv_ext import OperatorStandIns, provide_compiled_operators
from hydet.layers import sigmoid_focal_loss

NAME = "mmcv._ext"
ALIGN = {"aligned_height": 3, "aligned_width": 2, "spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True}
ROIS = torch.tensor([[0.0, 1, 2, 12, 9], [1, 0, 0, 7, 15]])


@pytest.fixture
def stand_ins():
    return OperatorStandIns()


def test_working_extension_is_kept(monkeypatch):
    built = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, built)
    assert provide_compiled_operators() is False
    assert sys.modules[NAME] is built


def test_missing_extension_is_replaced_once(monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    assert provide_compiled_operators() is True
    installed = sys.modules[NAME]
    assert isinstance(installed, OperatorStandIns)
    assert provide_compiled_operators() is True and sys.modules[NAME] is installed


def test_broken_extension_is_logged_and_replaced(monkeypatch, caplog):
    def broken(name):
        raise ImportError("undefined symbol")

    monkeypatch.setitem(sys.modules, NAME, None)
    monkeypatch.setattr(mmcv_ext.importlib, "import_module", broken)
    assert provide_compiled_operators() is True
    assert "undefined symbol" in caplog.text


def test_operator_without_stand_in_raises_when_called(stand_ins):
    assert hasattr(stand_ins, "carafe_forward")
    with pytest.raises(
        RuntimeError, match=r"operator carafe_forward is compiled code.*nms, roi_align_forward"
    ):
        stand_ins.carafe_forward(1, group=2)
    with pytest.raises(AttributeError):
        _ = stand_ins.__wrapped__


def test_nms_matches_torchvision(stand_ins):
    corners = torch.rand(50, 2) * 40
    boxes, scores = torch.cat([corners, corners + 5 + torch.rand(50, 2) * 20], dim=1), torch.rand(50)
    indices = stand_ins.nms(boxes, scores.half(), iou_threshold=0.4, offset=0)
    assert indices.tolist() == torchvision.ops.nms(boxes, scores.half().float(), 0.4).tolist()
    with pytest.raises(RuntimeError, match="offset=1"):
        stand_ins.nms(boxes, scores, iou_threshold=0.4, offset=1)


def test_roi_align_matches_torchvision(stand_ins):
    image = torch.randn(2, 3, 8, 9, requires_grad=True)
    expected = torchvision.ops.roi_align(image, ROIS, (3, 2), 0.5, 2, True)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, image, upstream)
    unused, output, image_gradient = torch.empty(0), torch.empty_like(expected), torch.empty_like(image)
    stand_ins.roi_align_forward(image.detach(), ROIS, output, unused, unused, pool_mode=1, **ALIGN)
    stand_ins.roi_align_backward(upstream, ROIS, unused, unused, image_gradient, pool_mode=1, **ALIGN)
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(image_gradient, gradient)


def test_roi_align_keeps_the_dtype_of_half_precision(stand_ins):
    image, unused = torch.randn(2, 3, 8, 9).bfloat16(), torch.empty(0)
    output = torch.empty(2, 3, 3, 2, dtype=torch.bfloat16)
    stand_ins.roi_align_forward(image, ROIS, output, unused, unused, pool_mode=1, **ALIGN)
    expected = torchvision.ops.roi_align(image.float(), ROIS, (3, 2), 0.5, 2, True)
    torch.testing.assert_close(output, expected.bfloat16())


def test_roi_align_with_max_pooling_raises(stand_ins):
    unused = torch.empty(0)
    with pytest.raises(RuntimeError, match="pool_mode='max'"):
        stand_ins.roi_align_forward(
            torch.zeros(1, 1, 4, 4), ROIS, unused, unused, unused, pool_mode=0, **ALIGN
        )


def test_focal_loss_and_its_gradient(stand_ins):
    logits, classes = torch.randn(5, 3), torch.tensor([0, 3, 2, 3, 1])  # 3 is the background
    targets = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    output, gradient = torch.empty_like(logits), torch.zeros_like(logits)
    settings = {"gamma": 2.0, "alpha": 0.25}
    stand_ins.sigmoid_focal_loss_forward(logits, classes, torch.empty(0), output, **settings)
    stand_ins.sigmoid_focal_loss_backward(logits, classes, torch.empty(0), gradient, **settings)
    leaf = logits.clone().requires_grad_()
    expected = sigmoid_focal_loss(leaf, targets, **settings)
    expected.sum().backward()
    torch.testing.assert_close(output, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)
    with pytest.raises(RuntimeError, match="weight for each class"):
        stand_ins.sigmoid_focal_loss_forward(logits, classes, torch.ones(3), output, **settings)


@pytest.mark.parametrize("with_bias", [True, False])
def test_deformable_convolution_with_zero_offsets_is_a_convolution(stand_ins, with_bias):
    image, weight = torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 3)  # two groups
    bias = torch.randn(6) if with_bias else torch.empty(0)
    offset, mask = torch.zeros(2, 18, 4, 3), torch.ones(2, 9, 4, 3)
    geometry = {
        "kernel_h": 3, "kernel_w": 3, "stride_h": 2, "stride_w": 2, "pad_h": 1, "pad_w": 1,
        "dilation_h": 1, "dilation_w": 1, "group": 2, "deformable_group": 1, "with_bias": with_bias,
    }  # fmt: skip
    leaves = [x.clone().requires_grad_() for x in (image, weight, bias)]
    expected = F.conv2d(*leaves[:2], leaves[2] if with_bias else None, stride=2, padding=1, groups=2)
    upstream = torch.randn_like(expected)
    expected.backward(upstream)

    output, buffer = torch.empty_like(expected), torch.empty(0)
    inputs = (image, weight, bias, buffer, offset, mask)
    stand_ins.modulated_deform_conv_forward(*inputs, output, buffer, **geometry)
    gradients = [torch.zeros_like(x) for x in (image, weight, bias, offset, mask)]
    stand_ins.modulated_deform_conv_backward(*inputs, buffer, *gradients, upstream, **geometry)
    torch.testing.assert_close(output, expected.detach(), rtol=1e-4, atol=1e-4)
    for gradient, leaf in zip(gradients[: 2 + with_bias], leaves):
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-4)
    assert gradients[3].abs().sum() > 0 and gradients[4].abs().sum() > 0


@pytest.fixture
def mmcv_ops(mmdet):
    from hydet.interop.mmdet.building import import_mmdet

    import_mmdet("this test")
    if not isinstance(sys.modules[NAME], OperatorStandIns):
        pytest.skip("a compiled mmcv is installed")
    return pytest.importorskip("mmcv.ops")


def test_focal_loss_of_mmcv_runs_on_the_stand_in(mmcv_ops):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = torch.tensor([0, 3, 2, 3, 1])
    ours, theirs = (torch.linspace(-3, 3, 15).view(5, 3).requires_grad_() for _ in range(2))
    output = (
        mmcv_ops.sigmoid_focal_loss(ours, classes, 2.0, 0.25, None, "mean") * 3
    )  # mmcv averages over rows, not over elements
    expected = py_sigmoid_focal_loss(theirs, F.one_hot(classes, 4)[:, :3], reduction="none").sum() / 5 * 3
    output.backward(), expected.backward()
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_deformable_attention_of_mmcv_runs_on_the_stand_in(mmcv_ops):
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[4, 5], [2, 3]])
    arguments = (torch.randn(2, 26, 2, 4), torch.rand(2, 3, 2, 2, 4, 2), torch.rand(2, 3, 2, 2, 4))
    ours, theirs = ([x.clone().requires_grad_() for x in arguments] for _ in range(2))
    output = MultiScaleDeformableAttnFunction.apply(ours[0], shapes, torch.tensor([0, 20]), *ours[1:], 64)
    expected = multi_scale_deformable_attn_pytorch(theirs[0], shapes, *theirs[1:])
    upstream = torch.randn_like(expected)
    output.backward(upstream), expected.backward(upstream)
    torch.testing.assert_close(output, expected)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.grad, b.grad)


def test_layers_of_mmcv_run_on_the_stand_ins(mmcv_ops):
    layer = mmcv_ops.ModulatedDeformConv2dPack(4, 6, kernel_size=3, padding=1)
    image = torch.randn(1, 4, 5, 5, requires_grad=True)
    layer(image).sum().backward()
    assert image.grad.abs().sum() > 0 and layer.weight.grad.abs().sum() > 0
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    detections, rows = mmcv_ops.batched_nms(
        boxes, torch.tensor([0.5, 0.9, 0.3]), torch.zeros(3).long(), {"type": "nms", "iou_threshold": 0.5}
    )
    assert rows.tolist() == [1, 2]
    torch.testing.assert_close(detections[:, 4], torch.tensor([0.9, 0.3]))
