"""Base class of convolutional networks that consist of a stem and stages of blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from torch import Tensor, nn

from hydet.layers import CNNBlockBase

from .backbone import Backbone

__all__ = ["StagedBackbone"]


class StagedBackbone(Backbone):
    """Base of ``ResNet`` and ``AnyNet``: a stem followed by stages of blocks.

    A subclass sets the attributes and adds each stage as a submodule.

    Attributes:
        stem: first layers.
        stage_names: names of the stages, from fine to coarse. Each is an ``nn.Sequential`` of ``CNNBlockBase``.
    """

    stem: CNNBlockBase
    stage_names: tuple[str, ...]

    @property
    def stages(self) -> list[nn.Sequential]:
        """Stages, from fine to coarse."""
        return [getattr(self, name) for name in self.stage_names]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, C, H, W)`` images of any size.

        Returns:
            ``(N, C_l, H / stride, W / stride)`` by name, rounded up, from fine to coarse.

        Raises:
            ValueError: if ``x`` does not have four axes.
        """
        outputs, _ = self._run_stages(x)
        return outputs

    def _run_stages(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the requested feature maps by name, and the output of the last stage."""
        if x.ndim != 4:
            raise ValueError(
                f"{type(self).__name__} takes images of shape (N, C, H, W), got {tuple(x.shape)}"
            )
        outputs = {}
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name in self.stage_names:
            for block in getattr(self, name):
                x = self._run(block, x)
            if name in self._out_features:
                outputs[name] = x
        return outputs, x

    def freeze(self, freeze_at: int = 0) -> Self:
        """Freeze the first stages: disable their gradients and make their batch norms constant.

        The first layers of a pretrained network are generic, and their activations take the most memory in training.

        Args:
            freeze_at: number of parts to freeze: 1 is the stem, 2 the stem and the first stage, and so on; 0 freezes
                nothing.

        Returns:
            The network itself.
        """
        parts: list[Iterable[nn.Module]] = [[self.stem], *self.stages]
        for part in parts[:freeze_at]:
            for block in part:
                block.freeze()  # type: ignore[operator]
        return self
