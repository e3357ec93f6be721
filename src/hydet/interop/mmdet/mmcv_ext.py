"""A stand-in for ``mmcv._ext``, the compiled operators that mmcv-lite lacks.

mmcv passes output tensors to its extension, which fills them. The functions of this module have the signatures of that
extension and compute with torch and torchvision on any device. Backward functions run the forward computation again
with autograd. All of them compute in float32, since half precision is too coarse for coordinates.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NoReturn

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from hydet.layers import sigmoid_focal_loss

__all__ = ["OperatorStandIns", "provide_compiled_operators"]

NAME = "mmcv._ext"
AVERAGE = 1  # mmcv's pool_mode of average pooling; 0 is maximum pooling


class OperatorStandIns(ModuleType):
    """A module with an attribute per operator; one without a stand-in raises ``RuntimeError`` when it is called."""

    def __init__(self) -> None:
        super().__init__(NAME, "Stand-ins of hydet for mmcv's compiled operators.")
        self.__spec__ = importlib.machinery.ModuleSpec(NAME, None)
        for function in STAND_INS:
            setattr(self, function.__name__, function)

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise RuntimeError(
                f"mmcv's operator {name} is compiled code, which mmcv-lite lacks and hydet has no stand-in for "
                f"(stand-ins: {', '.join(f.__name__ for f in STAND_INS)}); install a compiled mmcv 2.1.0 instead of "
                "mmcv-lite"
            )

        return missing


def provide_compiled_operators() -> bool:
    """Install the stand-ins as ``mmcv._ext``, unless it can be imported.

    Returns:
        True if the stand-ins are in use.
    """
    try:
        return isinstance(importlib.import_module(NAME), OperatorStandIns)
    except ModuleNotFoundError:
        pass
    except ImportError as error:  # compiled for another version of torch
        logging.getLogger(__name__).warning(
            "mmcv's compiled operators do not load (%s); using stand-ins", error
        )
    sys.modules[NAME] = OperatorStandIns()
    return True


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    if offset != 0:
        raise RuntimeError(f"mmcv's nms with offset={offset} has no stand-in; offset=0 has")
    indices: Tensor = torchvision.ops.nms(bboxes.float(), scores.float(), iou_threshold)
    return indices


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    _check_pool_mode(pool_mode)
    size = (aligned_height, aligned_width)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.float(), rois.float(), spatial_scale, *size, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    _check_pool_mode(pool_mode)
    size = (aligned_height, aligned_width)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.float(),
            rois.float(),
            spatial_scale,
            *size,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    _differentiate(
        lambda x: _focal_loss(x, target, weight, gamma, alpha),
        [input],
        torch.ones_like(input),
        [grad_input],
    )


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    inputs = (value.float(), sampling_locations.float(), attention_weights.float())
    return _deformable_attention(spatial_shapes)(*inputs).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_locations: Tensor,
    grad_attention_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    _differentiate(
        _deformable_attention(spatial_shapes),
        [value, sampling_locations, attention_weights],
        grad_output,
        [grad_value, grad_sampling_locations, grad_attention_weights],
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    tensors = (x.float() for x in (input, weight, bias, offset, mask))
    output.copy_(_deformable_convolution(geometry)(*tensors))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **geometry: int,
) -> None:
    _differentiate(
        _deformable_convolution(geometry),
        [input, weight, bias, offset, mask],
        grad_output,
        [grad_input, grad_weight, grad_bias, grad_offset, grad_mask],
    )


STAND_INS = (
    nms,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
)


def _check_pool_mode(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise RuntimeError("mmcv's RoIAlign with pool_mode='max' has no stand-in; pool_mode='avg' has")


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Compute ``(N, C)`` losses from ``(N, C)`` logits and ``(N,)`` classes; class C is background."""
    if weight.numel() > 0:
        raise RuntimeError("mmcv's sigmoid_focal_loss with a weight for each class has no stand-in")
    one_hot = F.one_hot(target, logits.shape[1] + 1)[:, :-1]
    return sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma)


def _deformable_attention(spatial_shapes: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes = spatial_shapes.tolist()  # one host synchronization; mmcv's function would need one per number
    return lambda value, locations, weights: multi_scale_deformable_attn_pytorch(
        value, shapes, locations, weights
    )


def _deformable_convolution(geometry: Mapping[str, int]) -> Callable[..., Tensor]:
    def convolve(input: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        output: Tensor = torchvision.ops.deform_conv2d(
            input,
            offset,
            weight,
            bias if geometry["with_bias"] else None,
            stride=(geometry["stride_h"], geometry["stride_w"]),
            padding=(geometry["pad_h"], geometry["pad_w"]),
            dilation=(geometry["dilation_h"], geometry["dilation_w"]),
            mask=mask,
        )
        return output

    return convolve


def _differentiate(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_output: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Fill ``gradients`` with the gradients of ``function`` at ``inputs``; those of unused inputs stay zero."""
    with torch.enable_grad():
        leaves = [x.detach().float().requires_grad_() for x in inputs]
        computed = torch.autograd.grad(function(*leaves), leaves, grad_output.float(), allow_unused=True)
    for gradient, value in zip(gradients, computed, strict=True):
        if value is not None:
            gradient.copy_(value)
