"""Backbones of the torchvision library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .adapted_backbone import AdaptedBackbone, names_of_strides
from .backbone import check_out_features
from .input_channels import replace_input_convolution

__all__ = ["TorchvisionBackbone"]

PROBE_SIZE = (512, 768)  # unequal, so that the axes of a feature map can be told apart


class TorchvisionBackbone(AdaptedBackbone):
    """A torchvision classifier without its head: ResNet, ResNeXt, RegNet, ConvNeXt, EfficientNet, MobileNet, Swin ...

    Without ``return_nodes`` the feature of each stride is the output of the last part of the network that has that
    stride, and is called ``res2``, ``res3`` ... after its base-2 logarithm. Channels and strides are found by a run
    without data, on the meta device. Parameters keep torchvision's names, below ``model``.

    Args:
        model_name: such as ``resnet50`` or ``convnext_tiny``, see ``torchvision.models.get_model``.
        model: a built network instead, from torchvision or elsewhere.
        weights: name of pretrained weights to download, such as ``DEFAULT``; for ``model_name`` only. They expect RGB
            images.
        in_channels: channels of the image. For other than three the first convolution is inflated, see
            ``inflate_input_weights``.
        out_features: which features to return; by default those of stride 4 and more.
        return_nodes: instead of the above, names of nodes of the traced network and of the features they become, see
            ``torchvision.models.feature_extraction``. A list of nodes keeps their names.
        frozen: train nothing, and leave the network in evaluation mode.
        freeze_norm: leave batch normalisations alone: neither statistics nor affine parameters change.
        size_divisibility: what height and width of the input must be multiples of.
        square_pad: if positive, ask for images padded to this height and width.
        use_act_checkpoint: recompute each block of several layers in the backward pass instead of keeping its
            activations; not with ``return_nodes``.
        model_options: further arguments of ``torchvision.models.get_model``.

    Raises:
        ValueError: if neither or both of ``model_name`` and ``model`` are given, or if the network is built in no known
            way and ``return_nodes`` is missing.
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
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        if (model_name is None) == (model is None):
            raise ValueError("TorchvisionBackbone takes either model_name or model")
        if model is None:
            model = _get_model(str(model_name), weights=weights, **(model_options or {}))
        elif weights is not None or model_options:
            raise ValueError("weights and model_options belong to model_name; this model is built already")
        replace_input_convolution(model, in_channels)
        if return_nodes is not None:
            if use_act_checkpoint:
                raise ValueError("activation checkpointing does not work with return_nodes")
            model = _trace(model, return_nodes)
        elif _segments(model) is None:
            raise ValueError(
                f"TorchvisionBackbone does not know where the stages of {type(model).__name__} end; name them by return_nodes"
            )
        super().__init__(
            model=model,
            frozen=frozen,
            freeze_norm=freeze_norm,
            size_divisibility=size_divisibility,
            square_pad=square_pad,
        )
        self.traced = return_nodes is not None
        self.use_act_checkpoint = None if self.traced else use_act_checkpoint
        self._name_of_segment: dict[int, str] | None = None  # None: return the outputs of all segments
        self._find_features(in_channels, out_features)

    def _find_features(self, in_channels: int, out_features: Sequence[str] | None) -> None:
        found = probe(self, in_channels)  # by segment or by node: channels, stride, channels last
        if self.traced:
            places = {name: name for name in found}
        else:
            last = {stride: place for place, (_, stride, _) in found.items() if stride > 1}
            places = {names_of_strides([stride])[0]: place for stride, place in sorted(last.items())}
        if out_features is None:
            out_features = [n for n, place in places.items() if self.traced or found[place][1] >= 4]
        check_out_features("TorchvisionBackbone", out_features, [*places])
        chosen = {name: found[places[name]] for name in out_features}
        self._out_features = list(out_features)
        self._out_feature_channels = {name: channels for name, (channels, _, _) in chosen.items()}
        self._out_feature_strides = {name: stride for name, (_, stride, _) in chosen.items()}
        self._channels_last = {name for name, (_, _, channels_last) in chosen.items() if channels_last}
        if not self.traced:
            self._name_of_segment = {int(places[name]): name for name in out_features}
            _drop_after(self.model, max(self._name_of_segment))

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
            names = self._name_of_segment
            for i, segment in enumerate(_segments(self.model) or ()):
                for block in segment:
                    x = self._run(block, x) if block._modules else block(x)  # single layers may work in place
                if names is None:
                    outputs[str(i)] = x
                elif i in names:
                    outputs[names[i]] = x
            if names is None:
                return outputs
        if hasattr(self, "_channels_last"):
            for name in self._channels_last:
                outputs[name] = outputs[name].permute(0, 3, 1, 2)
            outputs = {name: value for name, value in outputs.items() if name in self._out_features}
        return outputs


def probe(backbone: nn.Module, in_channels: int) -> dict[str, tuple[int, int, bool]]:
    """Channels, stride and whether channels come last, of every output that is a map; nothing is computed."""
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
    found = {}
    height, width = PROBE_SIZE
    for name, output in outputs.items():
        if output.ndim != 4:
            continue
        for channels_last, (channels, rows, columns) in (
            (False, tuple(output.shape[1:])),
            (True, (output.shape[3], output.shape[1], output.shape[2])),
        ):
            if height * columns == width * rows:
                found[name] = (channels, height // rows, channels_last)
                break
    if not found:
        raise ValueError("none of the outputs is a feature map of the proportions of the image")
    return found


def _get_model(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    return models.get_model(name, **options)


def _trace(model: nn.Module, return_nodes: Mapping[str, str] | Sequence[str]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = dict(return_nodes) if isinstance(return_nodes, Mapping) else list(return_nodes)
    return create_feature_extractor(model, return_nodes=nodes)  # type: ignore[arg-type]


# torchvision builds its networks in three ways: a stem and layer1 ... layer4; a stem and trunk_output; features.


def _segments(model: nn.Module) -> list[list[nn.Module]] | None:
    """The parts of a network in the order they run, each a list of blocks; ``None`` if it is built otherwise."""
    if all(hasattr(model, name) for name in ("conv1", "bn1", "relu", "layer1")):
        stem = [getattr(model, name) for name in ("conv1", "bn1", "relu", "maxpool") if hasattr(model, name)]
        layers = [getattr(model, f"layer{i}") for i in range(1, 5) if hasattr(model, f"layer{i}")]
        return [stem, *(list(layer) for layer in layers)]
    if hasattr(model, "stem") and isinstance(getattr(model, "trunk_output", None), nn.Sequential):
        return [[model.stem], *(list(stage.children()) for stage in model.trunk_output)]  # type: ignore[list-item, union-attr]
    if isinstance(getattr(model, "features", None), nn.Sequential):
        return [
            list(part)
            if type(part) is nn.Sequential
            else [part]  # not its subclasses: conv, norm, activation
            for part in model.features  # type: ignore[union-attr]
        ]
    return None


def _drop_after(model: nn.Module, last: int) -> None:
    """Remove everything that runs after segment ``last``."""
    if hasattr(model, "layer1"):
        removed = [f"layer{i}" for i in range(last + 1, 5)]
        kept = {"conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"} - set(removed)
    elif hasattr(model, "trunk_output"):
        model.trunk_output = model.trunk_output[:last]  # type: ignore[index]
        kept = {"stem", "trunk_output"}
    else:
        model.features = model.features[: last + 1]  # type: ignore[index]
        kept = {"features"}
    for name, _ in list(model.named_children()):
        if name not in kept:
            delattr(model, name)
