"""Backbones and necks of mmdet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from hydet.layers import ShapeSpec
from hydet.modeling.backbones import Backbone
from hydet.modeling.computed_buffers import ComputedBuffers

from .building import MMDetConfig, build_from_config, take_unsaved_buffers

__all__ = ["MMDetBackbone"]


class MMDetBackbone(Backbone, ComputedBuffers):
    """A backbone of mmdet, with an optional neck, that returns its feature maps by name.

    Parameters keep mmdet's names, below ``backbone`` and ``neck``.

    Args:
        backbone: an mmdet config such as ``{"type": "ResNet", "depth": 50}``, which is built and initialized; or a
            built module, from mmdet or not, which is used unchanged. It maps images to a list of feature maps.
        neck: an mmdet config, a list of configs to run one after the other, or a built module. It maps the list of
            feature maps to another list.
        output_shapes: channels and stride of each final feature map.
        output_names: names of the final feature maps; ``out0``, ``out1`` and so on by default.

    Raises:
        ImportError: if a config is given and mmdet is not installed.
        ValueError: if names and shapes differ in number, or mmdet has no such ``type``.
        TypeError: if ``backbone`` or ``neck`` is neither a module nor a config.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | MMDetConfig,
        neck: nn.Module | MMDetConfig | Sequence[MMDetConfig] | None = None,
        output_shapes: Sequence[ShapeSpec],
        output_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        names = [f"out{i}" for i in range(len(output_shapes))] if output_names is None else list(output_names)
        if len(names) != len(output_shapes) or len(set(names)) != len(names):
            raise ValueError(
                f"MMDetBackbone: {len(output_shapes)} output_shapes need as many different names, got {names}"
            )
        self.backbone = _build(backbone)
        self.neck = None if neck is None else _build(neck)
        parts = {"backbone": self.backbone, **({} if self.neck is None else {"neck": self.neck})}
        self._unsaved_buffers = {
            f"{part}.{name}": value
            for part, module in parts.items()
            for name, value in take_unsaved_buffers(module).items()
        }
        self.track_computed_buffers(self._unsaved_buffers)
        self._shapes = dict(zip(names, output_shapes))
        self._out_features = names
        self._out_feature_channels = {
            name: shape.channels for name, shape in self._shapes.items() if shape.channels is not None
        }
        self._out_feature_strides = {name: shape.stride for name, shape in self._shapes.items()}

    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return mmdet's buffers outside the state dict."""
        return self._unsaved_buffers

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the ``output_shapes`` by name."""
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, C, H, W)`` normalized images.

        Returns:
            ``(N, C_l, H_l, W_l)`` feature maps by name, in mmdet's order.

        Raises:
            TypeError: if the network does not return a list of feature maps.
            ValueError: if their number or channels differ from ``output_shapes``.
        """
        features = self.backbone(x)
        if self.neck is not None:
            features = self.neck(features)
        if not isinstance(features, list | tuple):
            raise TypeError(f"MMDetBackbone: expected a list of feature maps, got {type(features).__name__}")
        actual = [feature.shape[1] for feature in features]
        expected = [shape.channels for shape in self._shapes.values()]
        if len(actual) != len(expected) or any(e not in (None, a) for e, a in zip(expected, actual)):
            raise ValueError(
                f"MMDetBackbone: output_shapes has channels {expected}, the network produces {actual}"
            )
        return dict(zip(self._shapes, features))


def _build(part: nn.Module | MMDetConfig | Sequence[MMDetConfig]) -> nn.Module:
    return part if isinstance(part, nn.Module) else build_from_config(part, owner="MMDetBackbone")
