"""Semantic branch of a panoptic feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from hydet.kernels.autograd import AutogradContext
from hydet.layers import Conv2d, ShapeSpec, c2_msra_fill, get_norm
from hydet.modeling.class_rows import ClassRows
from hydet.modeling.compilable_layers import CompilableLayers
from hydet.structures import Losses
from hydet.structures.precision import at_least_float32

__all__ = ["SemSegFPNHead"]

# Logits at input resolution at a time: 32 MB, and three times as much for loss and gradient.
STRIP_SIZE = 1 << 23
# Values of the largest map, 16 MB, above which its layers are recomputed in the backward pass.
RECOMPUTE_SIZE = 1 << 22


class SemSegFPNHead(CompilableLayers):
    """Semantic head of Panoptic FPN: convolves and upsamples every level to one stride, and classifies their sum.

    Args:
        input_shape: shapes of the levels by name; channels and stride are used.
        num_classes: number of labels: stuff classes and, in a panoptic model, one label for all things.
        conv_dims: number of channels of the convolutions.
        common_stride: stride at which the levels are added and classified.
        loss_weight: factor of the loss.
        norm: normalization of the convolutions; see ``get_norm``.
        ignore_value: label of pixels without loss.
        in_features: names of the levels in ``input_shape`` to use; all by default.

    Raises:
        ValueError: if there is no level, or one with a smaller stride than ``common_stride``.

    Source: Kirillov et al. 2019 (arXiv:1901.02446), section 3.1 and figure 3.
    """

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = None,
        ignore_value: int = -1,
        in_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if in_features is not None:
            input_shape = {name: input_shape[name] for name in in_features}
        levels = sorted(input_shape.items(), key=lambda level: level[1].stride or 0)
        if not levels:
            raise ValueError("SemSegFPNHead needs at least one level in input_shape")
        self.in_features = [name for name, _ in levels]
        self.strides = {name: shape.stride or 0 for name, shape in levels}
        self.num_classes = num_classes
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value
        for name, shape in levels:
            stride = shape.stride or 0
            if stride < common_stride:
                raise ValueError(
                    f"SemSegFPNHead: {name} has stride {stride}, finer than common_stride {common_stride}"
                )
            parts: list[nn.Module] = []
            for k in range(max(1, int(math.log2(stride) - math.log2(common_stride)))):
                conv = Conv2d(
                    shape.channels if k == 0 else conv_dims,
                    conv_dims,
                    kernel_size=3,
                    padding=1,
                    bias=not norm,
                    norm=get_norm(norm, conv_dims),
                    activation=F.relu,
                )
                c2_msra_fill(conv)
                parts.append(conv)
                if stride != common_stride:
                    parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(name, nn.Sequential(*parts))
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        c2_msra_fill(self.predictor)

    @property
    def class_rows(self) -> dict[str, ClassRows]:
        """See ``hydet.modeling.class_rows``."""
        return {"predictor": ClassRows(self.num_classes, has_things=False)}

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, Losses]:
        """Compute losses if targets are given, else logits.

        Args:
            features: by name, ``(B, C, H / stride, W / stride)``.
            targets: ``(B, H, W)`` class indices.

        Returns:
            ``(None, losses)`` with targets, else ``(logits, {})``: ``(B, num_classes, H, W)`` at input resolution.
        """
        if targets is None:
            return self.upsample(self.layers(features)), {}
        if self._recomputes(features):
            predictions = checkpoint(self.layers, features, use_reentrant=False, preserve_rng_state=False)
        else:
            predictions = self.layers(features)
        return None, self.losses(predictions, targets)

    def _recomputes(self, features: Mapping[str, Tensor]) -> bool:
        """Return True if the backward pass computes ``layers`` again instead of keeping its feature maps.

        For a training image of 800 x 1344 pixels they take 0.2 GB, and would be kept while the gradients of all other heads
        are computed. Batch norms would count the batch twice in their statistics.
        """
        name = self.in_features[0]
        scale = self.strides[name] / self.common_stride
        values = features[name][:, 0].numel() * scale**2 * self.predictor.in_channels
        has_statistics = any(path.endswith("running_mean") for path, _ in self.named_buffers())
        return torch.is_grad_enabled() and values > RECOMPUTE_SIZE and not has_statistics

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Compute logits at the common stride: ``(B, num_classes, H / common_stride, W / common_stride)``."""
        branches = [getattr(self, name)(features[name]) for name in self.in_features]
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        logits: Tensor = self.predictor(total)
        return logits

    def upsample(self, predictions: Tensor) -> Tensor:
        """Upsample from the common stride to input resolution, bilinearly."""
        # The classes of a pixel are compared and resized faster map by map than in channels-last order, and in float32,
        # which the results have in the end.
        return F.interpolate(
            at_least_float32(predictions.contiguous()),
            scale_factor=self.common_stride,
            mode="bilinear",
            align_corners=False,
        )

    def losses(self, predictions: Tensor, targets: Tensor) -> Losses:
        """Compute the mean cross-entropy over all pixels but the ignored ones; a connected zero if all are ignored.

        Args:
            predictions: logits from ``layers``. The loss is computed in float32 even under autocast.
            targets: ``(B, H, W)`` class indices or ``ignore_value``.
        """
        total = self._sum_of_losses(predictions.float(), targets.long())
        num_pixels = (targets != self.ignore_value).sum().clamp(min=1)
        return {"loss_sem_seg": total / num_pixels * self.loss_weight}

    def _sum_of_losses(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross-entropy of all pixels.

        Logits at input resolution are by far the largest tensors of a training step, so large ones are computed in strips
        of rows, together with their gradients.
        """
        batch, classes, height, width = predictions.shape
        rows = STRIP_SIZE // max(1, batch * classes * width * self.common_stride**2)
        if rows >= height or targets.shape[1:] != (height * self.common_stride, width * self.common_stride):
            return self._cross_entropy(self.upsample(predictions), targets)
        step = max(1, rows)
        strips = [(first, min(first + step, height)) for first in range(0, height, step)]
        total: Tensor = _SumOverStrips.apply(
            predictions, lambda x, strip: self._loss_of_rows(x, targets, *strip), strips
        )
        return total

    def _loss_of_rows(self, predictions: Tensor, targets: Tensor, first: int, last: int) -> Tensor:
        # Bilinear upsampling reads one row more on each side.
        above, below = max(0, first - 1), min(predictions.shape[2], last + 1)
        stride = self.common_stride
        logits = self.upsample(predictions[:, :, above:below])
        logits = logits[:, :, (first - above) * stride : (last - above) * stride]
        return self._cross_entropy(logits, targets[:, first * stride : last * stride])

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction="sum", ignore_index=self.ignore_value)


class _SumOverStrips(torch.autograd.Function):
    """Sum of a scalar function of a tensor over strips. The gradient is computed with it, one strip at a time."""

    @staticmethod
    def forward(
        ctx: AutogradContext,
        x: Tensor,
        function: Callable[[Tensor, tuple[int, int]], Tensor],
        strips: Sequence[tuple[int, int]],
    ) -> Tensor:
        total, gradient = x.new_zeros(()), None
        if ctx.needs_input_grad[0]:
            gradient = torch.zeros_like(x)
        for strip in strips:
            if gradient is None:
                total += function(x, strip)
                continue
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                value = function(leaf, strip)
            gradient += torch.autograd.grad(value, leaf)[0]
            total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: AutogradContext, gradient: Tensor) -> tuple[Tensor, None, None]:
        (of_sum,) = ctx.saved_tensors
        return gradient * of_sum, None, None
