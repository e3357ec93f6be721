"""Backbones of the torchvision library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .adapted_backbone import AdaptedBackbone, names_from_strides
from .backbone import check_out_features
from .input_inflation import replace_input_convolution

__all__ = ["TorchvisionBackbone"]

PROBE_SIZE = (512, 768)  # unequal, to distinguish the axes of a feature map


class TorchvisionBackbone(AdaptedBackbone):
    """A torchvision classifier without its head: ResNet, ResNeXt, RegNet, ConvNeXt, EfficientNet, MobileNet, Swin ...

    Without ``return_nodes``, the feature of each stride is the output of the last segment with that stride, named
    ``res2``, ``res3``, ... by log2 of the stride. Channels and strides come from a forward pass on the meta device.
    Parameters keep torchvision's names, prefixed by ``model``.

    Args:
        model_name: name for ``torchvision.models.get_model``, such as ``resnet50`` or ``convnext_tiny``.
        model: a built network, instead of ``model_name``.
        weights: name of pretrained weights to download, such as ``DEFAULT``; only with ``model_name``. They expect RGB
            images.
        in_channels: channels of the image. For other than three, the first convolution is inflated; see
            ``inflate_input_weights``.
        out_features: names of the features to return; by default all of stride 4 and more.
        return_nodes: nodes of the traced network, mapped to feature names, as in
            ``torchvision.models.feature_extraction``; a list keeps the names of the nodes.
        frozen: freeze all parameters and keep the network in evaluation mode.
        freeze_norm: freeze statistics and affine parameters of batch norms.
        size_divisibility: height and width of the input must be multiples of this.
        square_pad: if positive, images are padded to this height and width.
        use_act_checkpoint: recompute each block of several layers in the backward pass instead of storing its
            activations; not supported with ``return_nodes``.
        model_options: further arguments of ``torchvision.models.get_model``.

    Raises:
        ValueError: if not exactly one of ``model_name`` and ``model`` is given, or if the structure of the network is
            unknown and ``return_nodes`` is missing.
    """

    def __init__(
        self,
        *,
        model_name: str | None = None,
        model: nn.Module | None = None,
        weights: str | None = None,
        in_channels: int = 3,
        out_features: Sequence[str] | None = None,
        return_nodes: Mapping[str, str] | Sequence[str] | None = None,
        frozen: bool = False,
        freeze_norm: bool = False,
        size_divisibility: int = 0,
        square_pad: int = 0,
        use_act_checkpoint: bool = False,
        model_options: Mapping[str, object] | None = None,
    ) -> None:
        if (model_name is None) == (model is None):
            raise ValueError("TorchvisionBackbone takes either model_name or model")
        if model is None:
            model = _get_model(str(model_name), weights=weights, **(model_options or {}))
        elif weights is not None or model_options:
            raise ValueError("weights and model_options apply to model_name only, but model is given")
        replace_input_convolution(model, in_channels)
        if return_nodes is not None:
            if use_act_checkpoint:
                raise ValueError("activation checkpointing does not work with return_nodes")
            model = _trace(model, return_nodes)
        elif _segments(model) is None:
            raise ValueError(
                f"TorchvisionBackbone does not know the stages of {type(model).__name__}; name them with return_nodes"
            )
        super().__init__(
            model=model,
            frozen=frozen,
            freeze_norm=freeze_norm,
            size_divisibility=size_divisibility,
            square_pad=square_pad,
        )
        self.traced = return_nodes is not None
        self._out_features = []
        self.use_act_checkpoint = None if self.traced else use_act_checkpoint
        # Until _find_features sets these names, forward returns the outputs of all segments in their own memory layout.
        self._segment_names: dict[int, str] | None = None
        self._channels_last: set[str] = set()
        self._find_features(in_channels, out_features)

    def _find_features(self, in_channels: int, out_features: Sequence[str] | None) -> None:
        maps = probe_feature_maps(self, in_channels)  # by segment index or node name
        if self.traced:
            sources = {name: name for name in maps}
        else:
            last_of_stride = {m.stride: index for index, m in maps.items() if m.stride > 1}
            sources = {names_from_strides([s])[0]: index for s, index in sorted(last_of_stride.items())}
        if out_features is None:
            out_features = [n for n, source in sources.items() if self.traced or maps[source].stride >= 4]
        check_out_features("TorchvisionBackbone", out_features, [*sources])
        selected = {name: maps[sources[name]] for name in out_features}
        self._out_features = list(out_features)
        self._out_feature_channels = {name: m.channels for name, m in selected.items()}
        self._out_feature_strides = {name: m.stride for name, m in selected.items()}
        self._channels_last = {name for name, m in selected.items() if m.channels_last}
        if not self.traced:
            self._segment_names = {int(sources[name]): name for name in out_features}
            _drop_after(self.model, max(self._segment_names))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, in_channels, H, W)`` images.

        Returns:
            ``(N, C_l, H / stride, W / stride)`` by name, from fine to coarse.
        """
        if self.traced:
            outputs = dict(self.model(x))
        else:
            outputs = {}
            names = self._segment_names
            for i, segment in enumerate(_segments(self.model) or ()):
                for block in segment:
                    # A single layer may work in place, so it must not run twice on the same tensor.
                    x = self._run(block, x) if block._modules else block(x)
                if names is None:
                    outputs[str(i)] = x
                elif i in names:
                    outputs[names[i]] = x
            if names is None:
                return outputs
        if not self._out_features:
            return outputs
        for name in self._channels_last:
            outputs[name] = outputs[name].permute(0, 3, 1, 2)
        return {name: value for name, value in outputs.items() if name in self._out_features}


class FeatureMap(NamedTuple):
    """Channels, stride and memory layout of an output."""

    channels: int
    stride: int
    channels_last: bool


def probe_feature_maps(backbone: nn.Module, in_channels: int) -> dict[str, FeatureMap]:
    """Return the shape of each output that is a feature map, from a forward pass on the meta device."""
    tensors = {
        name: tensor.to("meta")
        for name, tensor in chain(backbone.named_parameters(), backbone.named_buffers())
    }
    training = backbone.training
    backbone.eval()
    image = torch.empty(1, in_channels, *PROBE_SIZE, device="meta")
    with torch.no_grad():
        outputs = torch.func.functional_call(backbone, tensors, (image,))
    backbone.train(training)
    maps = {}
    height, width = PROBE_SIZE
    for name, output in outputs.items():
        if output.ndim != 4:
            continue
        for channels_last, (channels, rows, columns) in (
            (False, tuple(output.shape[1:])),
            (True, (output.shape[3], output.shape[1], output.shape[2])),
        ):
            if height * columns == width * rows:
                maps[name] = FeatureMap(channels, height // rows, channels_last)
                break
    if not maps:
        raise ValueError("no output is a feature map with the aspect ratio of the image")
    return maps


def _get_model(name: str, **options: object) -> nn.Module:
    from torchvision import models

    module: nn.Module = models.get_model(name, **options)
    return module


def _trace(model: nn.Module, return_nodes: Mapping[str, str] | Sequence[str]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = dict(return_nodes) if isinstance(return_nodes, Mapping) else list(return_nodes)
    module: nn.Module = create_feature_extractor(model, return_nodes=nodes)
    return module


# torchvision's networks have one of three structures: a stem and layer1 to layer4; stem and trunk_output; features.


def _segments(model: nn.Module) -> list[list[nn.Module]] | None:
    """Return the segments of a network in the order of execution, each a list of blocks; None if unknown."""
    if all(hasattr(model, name) for name in ("conv1", "bn1", "relu", "layer1")):
        stem = [getattr(model, name) for name in ("conv1", "bn1", "relu", "maxpool") if hasattr(model, name)]
        layers = [getattr(model, f"layer{i}") for i in range(1, 5) if hasattr(model, f"layer{i}")]
        return [stem, *(list(layer) for layer in layers)]
    if hasattr(model, "stem") and isinstance(getattr(model, "trunk_output", None), nn.Sequential):
        return [[model.stem], *(list(stage.children()) for stage in model.trunk_output)]  # type: ignore[list-item, union-attr]
    if isinstance(getattr(model, "features", None), nn.Sequential):
        return [
            # Subclasses of nn.Sequential are units of convolution, norm and activation, so they stay whole.
            list(part) if type(part) is nn.Sequential else [part]
            for part in model.features  # type: ignore[union-attr]
        ]
    return None


def _drop_after(model: nn.Module, last: int) -> None:
    """Delete all modules that run after segment ``last``."""
    if hasattr(model, "layer1"):
        removed = [f"layer{i}" for i in range(last + 1, 5)]
        remaining = {"conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"} - set(removed)
    elif hasattr(model, "trunk_output"):
        model.trunk_output = model.trunk_output[:last]  # type: ignore[index]
        remaining = {"stem", "trunk_output"}
    else:
        model.features = model.features[: last + 1]  # type: ignore[index]
        remaining = {"features"}
    for name, _ in list(model.named_children()):
        if name not in remaining:
            delattr(model, name)
