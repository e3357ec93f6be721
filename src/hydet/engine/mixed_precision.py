"""Autocast and loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hydet.distributed import resolve_precision

__all__ = ["MixedPrecision"]


class MixedPrecision:
    """Compute the model in a lower precision while its weights stay float32.

    float16 gradients underflow, so under float16 the loss is scaled before the backward pass and the gradients are
    scaled back before the optimizer step (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2). bfloat16 has the
    range of float32 and needs no scaling.

    Args:
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``; see ``hydet.distributed.resolve_precision``.
        device: device of the model.

    Attributes:
        dtype: data type of autocast; float32 means no autocast.
        scaler: scaler of losses and gradients, enabled under float16.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.dtype = resolve_precision(precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self._device_type = device.type

    @property
    def name(self) -> str:
        """``"fp32"``, ``"bf16"`` or ``"fp16"``."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model computes."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Scale the loss and compute gradients."""
        self.scaler.scale(loss).backward()

    def scale_gradients(self, optimizer: Optimizer, factor: Tensor) -> None:
        """Multiply the gradients of an optimizer's parameters by a number, a tensor without dimensions."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        *,
        max_norm: float | None = None,
        max_value: float | None = None,
        max_parameter_norm: float | None = None,
    ) -> Tensor | None:
        """Clip the gradients of an optimizer's parameters, in their true scale.

        Values are clipped first, then the norm of each parameter, then the norm of all.

        Args:
            optimizer: optimizer of the step.
            max_norm: largest norm of all gradients together.
            max_value: largest absolute value of an element of a gradient.
            max_parameter_norm: largest norm of the gradient of one parameter.

        Returns:
            The norm before it was clipped, on the device, or None without ``max_norm``.
        """
        if max_norm is None and max_value is None and max_parameter_norm is None:
            return None
        self.scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if max_value is not None:
            nn.utils.clip_grad_value_(parameters, max_value)
        if max_parameter_norm is not None:
            for parameter in parameters:
                nn.utils.clip_grad_norm_(parameter, max_parameter_norm)
        return None if max_norm is None else nn.utils.clip_grad_norm_(parameters, max_norm)

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights; under float16, skip the update if a gradient overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()
