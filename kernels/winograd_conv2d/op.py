"""The ops ``hydet::winograd_conv2d`` and its variants: argument checks, fake kernels and gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hydet.kernels.autograd import AutogradContext
from hydet.kernels.dispatch import Preference
from hydet.kernels.winograd_conv2d.torch_impl import (
    conv2d_torch,
    empty_output,
    forward_torch,
    transform_weight_torch,
    weight_gradient_torch,
)

__all__ = ["PREFERENCE", "transform_winograd_weight", "winograd_conv2d", "winograd_conv2d_transformed"]

PREFERENCE = Preference("winograd_conv2d", cpu=("torch",), cuda=("torch",))


@torch.library.custom_op("hydet::winograd_conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv2d_torch(x, weight, bias)


@torch.library.custom_op("hydet::winograd_conv2d_transformed", mutates_args=())
def _conv2d_transformed(x: Tensor, transformed_weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return forward_torch(x, transformed_weight, bias, relu)


@torch.library.custom_op("hydet::winograd_conv2d_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    return weight_gradient_torch(x, gradient)


@_conv2d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return empty_output(x, weight.shape[0])


@_conv2d_transformed.register_fake
def _(x: Tensor, transformed_weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    return empty_output(x, transformed_weight.shape[2])


@_weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor) -> Tensor:
    return x.new_empty(gradient.shape[1], x.shape[1], 3, 3)


def _setup_context(
    ctx: AutogradContext, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: AutogradContext, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    gradient_x = gradient_weight = gradient_bias = None
    if needs_x:  # a convolution with the mirrored filters and the roles of the channels exchanged
        gradient_x = _conv2d(gradient, weight.flip(2, 3).transpose(0, 1), None)
    if needs_weight:
        gradient_weight = _weight_gradient(x, gradient)
    if needs_bias:
        gradient_bias = gradient.sum(dim=(0, 2, 3))
    return gradient_x, gradient_weight, gradient_bias


_conv2d.register_autograd(_backward, setup_context=_setup_context)


def transform_winograd_weight(weight: Tensor) -> Tensor:
    """Map ``(K, C, 3, 3)`` weights to the ``(36, C, K)`` form that :func:`winograd_conv2d_transformed` takes.

    Raises:
        ValueError: if the shape is another one.
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise ValueError(f"weight must be (K, C, 3, 3), got {tuple(weight.shape)}")
    return transform_weight_torch(weight)


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a 3 x 3 convolution of stride 1 with one zero around the input, with a quarter of the products.

    Equals ``F.conv2d(x, weight, bias, padding=1)`` up to rounding, with errors about twice as large. It is faster for
    many channels and large feature maps in float32 on a processor.

    Args:
        x: ``(N, C, H, W)``, fastest if stored channels last.
        weight: ``(K, C, 3, 3)``.
        bias: ``(K,)``, or None.

    Returns:
        ``(N, K, H, W)``, stored channels last. Gradients reach all arguments.

    Raises:
        ValueError: if the shapes do not fit together.

    Source: Lavin and Gray 2016 (arXiv:1509.09308).
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise ValueError(f"weight must be (K, C, 3, 3), got {tuple(weight.shape)}")
    _check_channels(x, weight.shape[1], weight.shape[0], bias)
    result: Tensor = _conv2d(x, weight, bias)
    return result


def winograd_conv2d_transformed(
    x: Tensor, transformed_weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """Compute :func:`winograd_conv2d` with a weight from :func:`transform_winograd_weight`, for inference: without gradients.

    Args:
        x: ``(N, C, H, W)``.
        transformed_weight: ``(36, C, K)``. The products have its precision: bfloat16 with transforms in float32 has three
            to four times the rounding error of a plain convolution in bfloat16.
        bias: ``(K,)``, or None.
        relu: replace negative outputs by 0.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    if transformed_weight.ndim != 3 or transformed_weight.shape[0] != 36:
        raise ValueError(f"transformed_weight must be (36, C, K), got {tuple(transformed_weight.shape)}")
    _, num_inputs, num_outputs = transformed_weight.shape
    _check_channels(x, num_inputs, num_outputs, bias)
    result: Tensor = _conv2d_transformed(x.detach(), transformed_weight.detach(), bias, relu)
    return result


def _check_channels(x: Tensor, num_inputs: int, num_outputs: int, bias: Tensor | None) -> None:
    if x.ndim != 4 or x.shape[1] != num_inputs:
        raise ValueError(f"x must be (N, {num_inputs}, H, W), got {tuple(x.shape)}")
    if bias is not None and bias.shape != (num_outputs,):
        raise ValueError(f"bias must be ({num_outputs},), got {tuple(bias.shape)}")
