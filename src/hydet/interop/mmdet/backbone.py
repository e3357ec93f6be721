"""Backbones and necks of mmdet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hydet.layers import ShapeSpec
from hydet.modeling.backbones import Backbone

from .building import build_from_config

__all__ = ["MMDetBackbone"]


class MMDetBackbone(Backbone):
    """A backbone of mmdet, perhaps with a neck on it, that gives its feature maps by name.

    Parameters keep mmdet's names, below ``backbone`` and ``neck``.

    Args:
        backbone: a config of mmdet, such as ``{"type": "ResNet", "depth": 50}``, which is built and initialised; or
            a built module, of mmdet or not, which is left as it is. It takes images and returns a list of maps.
        neck: likewise, or a list of configs to run one after the other; takes that list and returns another.
        output_shapes: channels and stride of every map that comes out at the end.
        output_names: what to call them; by default ``out0``, ``out1`` ...

    Raises:
        ImportError: if a config is given and mmdet is not installed.
        ValueError: if names and shapes differ in number, or mmdet does not know a ``type``.
        TypeError: if ``backbone`` or ``neck`` is neither a module nor a config.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module | Mapping[str, Any],
        neck: nn.Module | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        output_shapes: Sequence[ShapeSpec],
        output_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        names = [f"out{i}" for i in range(len(output_shapes))] if output_names is None else list(output_names)
        if len(names) != len(output_shapes) or len(set(names)) != len(names):
            raise ValueError(
                f"MMDetBackbone: {len(output_shapes)} output_shapes need as many different names, got {names}"
            )
        self.backbone = _built(backbone)
        self.neck = None if neck is None else _built(neck)
        self._shapes = dict(zip(names, output_shapes))
        self._out_features = names
        self._out_feature_channels = {name: shape.channels for name, shape in self._shapes.items()}
        self._out_feature_strides = {name: shape.stride for name, shape in self._shapes.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """The ``output_shapes`` by name."""
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, C, H, W)`` normalised images.

        Returns:
            ``(N, C_l, H_l, W_l)`` by name, in mmdet's order.

        Raises:
            TypeError: if the network returns something other than a list of maps.
            ValueError: if their number or channels are not those of ``output_shapes``.
        """
        features = self.backbone(x)
        if self.neck is not None:
            features = self.neck(features)
        if not isinstance(features, list | tuple):
            raise TypeError(f"MMDetBackbone: expected a list of feature maps, got {type(features).__name__}")
        found = [feature.shape[1] for feature in features]
        wanted = [shape.channels for shape in self._shapes.values()]
        if len(found) != len(wanted) or any(w not in (None, f) for w, f in zip(wanted, found)):
            raise ValueError(f"MMDetBackbone: output_shapes has channels {wanted}, the network gives {found}")
        return dict(zip(self._shapes, features))


def _built(part: Any) -> nn.Module:
    return part if isinstance(part, nn.Module) else build_from_config(part, owner="MMDetBackbone")
