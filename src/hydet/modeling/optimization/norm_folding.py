"""Folding of constant batch norms into the convolutions before them.

A batch norm with constant statistics multiplies and shifts each channel, so the convolution before it can do the same
with other weights. This saves two passes over every feature map.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from hydet.layers import Conv2d, DeformConv, FrozenBatchNorm2d, ModulatedDeformConv

__all__ = ["fold_norms"]

_NormedConv = Conv2d | DeformConv | ModulatedDeformConv
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, TorchvisionFrozenBatchNorm2d)

# A folded backbone must agree with the original to this fraction of the largest value of each feature map.
_TOLERANCE = 1e-3
_PROBE_SIDE = 128


def fold_norms(model: nn.Module) -> int:
    """Fold the batch norms of a model in evaluation mode into its convolutions, in place.

    Norms that belong to a hydet layer and norms that follow a convolution in an ``nn.Sequential`` are folded anywhere.
    In a backbone (``model.backbone``, or ``model`` itself if it has ``output_shape``), which may be a network of timm or
    torchvision, every norm whose input is the output of one convolution is folded: a forward pass on a small image finds
    these pairs, and the result is compared with the original.

    Args:
        model: any module; it no longer trains as before.

    Returns:
        Number of folded norms. Norms that no convolution precedes, and norms that differ per pyramid level, stay.

    Raises:
        ValueError: if the model is in training mode, where statistics are not constant.
    """
    if any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)):
        raise ValueError("fold_norms needs a model in evaluation mode: call model.eval() first")
    count = _fold_declared(model) + _fold_sequences(model)
    owner = model if hasattr(model, "output_shape") else getattr(model, "backbone", None)
    if isinstance(owner, nn.Module):
        count += _fold_traced(owner)
    return count


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand of each channel of a batch norm with constant statistics."""
    mean, var = norm.running_mean, norm.running_var
    weight, bias, eps = norm.weight, norm.bias, norm.eps
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()  # type: ignore[operator]
    shift = -mean * scale if bias is None else bias - mean * scale  # type: ignore[operator]
    return scale, shift


def _is_constant(norm: nn.Module | None) -> bool:
    return isinstance(norm, _BATCH_NORMS) and getattr(norm, "running_mean", None) is not None


@torch.no_grad()
def _fold(conv: nn.Module, norm: nn.Module) -> None:
    """Absorb a norm into the weight and the bias of a convolution."""
    scale, shift = scale_and_shift(norm)
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    folded = (weight * scale.view(-1, 1, 1, 1)).to(weight.dtype)
    conv.weight = nn.Parameter(folded, requires_grad=False)
    shift = shift if bias is None else shift + bias * scale  # type: ignore[operator]
    conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _fold_declared(model: nn.Module) -> int:
    """Fold the norms that hydet's layers apply themselves."""
    layers = [m for m in model.modules() if isinstance(m, _NormedConv) and _is_constant(m.norm)]
    for layer in layers:
        assert layer.norm is not None
        _fold(layer, layer.norm)
        layer.norm = None
    return len(layers)


def _fold_sequences(model: nn.Module) -> int:
    """Fold the norms that follow a plain convolution in an ``nn.Sequential`` that runs its children in order."""
    count = 0
    for sequence in model.modules():
        if type(sequence) is not nn.Sequential:
            continue
        names = list(sequence._modules)
        for first, second in itertools.pairwise(names):
            conv, norm = sequence._modules[first], sequence._modules[second]
            if type(conv) is nn.Conv2d and norm is not None and _is_constant(norm):
                _fold(conv, norm)
                sequence._modules[second] = _remainder(norm)
                count += 1
    return count


def _remainder(norm: nn.Module) -> nn.Module:
    """Return what a norm does besides normalizing: the norms of timm also drop channels and activate."""
    rest = [
        getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)
    ]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    return nn.Sequential(*rest) if rest else nn.Identity()


def _fold_traced(backbone: nn.Module) -> int:
    """Fold the norms of any network, after finding the convolution that each of them follows."""
    candidates = [name for name, m in backbone.named_modules() if m is not backbone and _is_constant(m)]
    if not candidates:
        return 0
    image = _probe_image(backbone)
    with torch.no_grad():
        folded = copy.deepcopy(backbone)
        pairs, expected = _find_pairs(folded, image)
        for conv_name, norm_name in pairs:
            norm = folded.get_submodule(norm_name)
            _fold(folded.get_submodule(conv_name), norm)
            _replace(folded, norm_name, _remainder(norm))
        if not _agree(expected, folded(image)):
            return 0  # an output of a convolution is used elsewhere too
    for conv_name, norm_name in pairs:
        conv = backbone.get_submodule(conv_name)
        source = folded.get_submodule(conv_name)
        conv.weight, conv.bias = source.weight, source.bias
        _replace(backbone, norm_name, folded.get_submodule(norm_name))
    return len(pairs)


def _find_pairs(network: nn.Module, image: Tensor) -> tuple[list[tuple[str, str]], dict[str, Tensor]]:
    """Return the names of convolutions and the norms that read their outputs, and the outputs of the network."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # tensors are kept, so that their ids stay unique
    inputs: dict[str, list[int]] = {}
    calls: dict[str, int] = {}
    handles = []
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d:

            def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                outputs[id(output)] = (name, output)
                calls[name] = calls.get(name, 0) + 1

            handles.append(module.register_forward_hook(after))
        elif name and _is_constant(module):

            def before(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                inputs.setdefault(name, []).append(id(args[0]))

            handles.append(module.register_forward_pre_hook(before))
    result = network(image)
    for handle in handles:
        handle.remove()
    pairs = []
    for norm, sources in inputs.items():
        if len(sources) == 1 and sources[0] in outputs:
            conv = outputs[sources[0]][0]
            if calls[conv] == 1:
                pairs.append((conv, norm))
    return pairs, {key: value.clone() for key, value in dict(result).items()}


def _probe_image(backbone: nn.Module) -> Tensor:
    """Return a small random image in the device, dtype and size that the backbone accepts."""
    parameter = next(backbone.parameters())
    channels = next((m.in_channels for m in backbone.modules() if isinstance(m, nn.Conv2d)), 3)
    constraints = getattr(backbone, "padding_constraints", {})
    multiple = max(1, int(getattr(backbone, "size_divisibility", 0) or 1))
    side = int(constraints.get("square_size", 0)) or -(-_PROBE_SIDE // multiple) * multiple
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, side, side, generator=generator)
    return image.to(parameter.device, parameter.dtype)


def _agree(expected: dict[str, Tensor], folded: dict[str, Tensor]) -> bool:
    return all(
        float((folded[name] - value).abs().amax()) <= _TOLERANCE * float(value.abs().amax())
        for name, value in expected.items()
    )


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
