"""Normalization layers, and ``get_norm`` to make them by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.distributed import world_size

__all__ = [
    "BatchNorm2d",
    "CycleBatchNormList",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "NaiveSyncBatchNorm",
    "get_norm",
]

BatchNorm2d = nn.BatchNorm2d


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with constant statistics and affine parameters, stored as buffers.

    Detectors that start from a pretrained backbone freeze its statistics, because batches of a few large images are too
    small to estimate new ones. A new layer is the identity. A state dict without statistics, whose weights have
    absorbed them, loads as mean 0 and variance 1.

    Args:
        num_features: number of channels.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, *, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, H, W)``."""
        if x.requires_grad:
            # F.batch_norm saves x for gradients of statistics that are constant here; this form saves the scale alone.
            scale, shift = self.scale_and_shift()
            return torch.addcmul(shift.to(x.dtype).view(1, -1, 1, 1), x, scale.to(x.dtype).view(1, -1, 1, 1))
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the ``(C,)`` factor and summand of each channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, default in (("running_mean", torch.zeros_like), ("running_var", torch.ones_like)):
            if prefix + name not in state_dict:
                state_dict[prefix + name] = default(getattr(self, name))
        # The counter has no effect here: it survives a conversion, and is optional in files.
        counter = prefix + "num_batches_tracked"
        if self.num_batches_tracked is None:
            state_dict.pop(counter, None)
        else:
            state_dict.setdefault(counter, self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"{self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Freeze every batch norm below ``module``, in place.

        Returns:
            ``module``, or the frozen layer if ``module`` itself is a batch norm.

        Raises:
            TypeError: if a subclass of batch norm overrides ``forward``, since its behavior would be lost.
        """
        return _replace(module, cls._frozen, {})

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """Turn every frozen layer below ``module`` into ``BatchNorm2d``, in place.

        Returns:
            ``module``, or the new layer if ``module`` itself is a frozen layer.
        """
        return _replace(module, cls._thawed, {})

    @classmethod
    def _frozen(cls, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            return None
        if type(module).forward not in (*_BATCH_NORM_FORWARDS, NaiveSyncBatchNorm.forward):
            raise TypeError(f"cannot freeze {type(module).__name__}: its forward does more than normalize")
        frozen = cls(num_features=module.num_features, eps=module.eps).to(_device_of(module))
        if module.affine:
            frozen.weight = module.weight.detach().clone()
            frozen.bias = module.bias.detach().clone()
        if module.running_mean is not None and module.running_var is not None:
            frozen.running_mean = module.running_mean.detach().clone()
            frozen.running_var = module.running_var.detach().clone()
        frozen.num_batches_tracked = module.num_batches_tracked
        return frozen.train(module.training)

    @staticmethod
    def _thawed(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, FrozenBatchNorm2d):
            return None
        thawed = nn.BatchNorm2d(module.num_features, module.eps).to(module.weight)
        thawed.weight.data = module.weight.detach().clone()
        thawed.bias.data = module.bias.detach().clone()
        thawed.running_mean = module.running_mean.detach().clone()
        thawed.running_var = module.running_var.detach().clone()
        return thawed.train(module.training)


_BATCH_NORM_FORWARDS = (nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward)


def _device_of(module: nn.Module) -> torch.device | None:
    return next((t.device for t in (*module.parameters(), *module.buffers())), None)


def _replace(
    module: nn.Module, make: Callable[[nn.Module], nn.Module | None], done: dict[nn.Module, nn.Module]
) -> nn.Module:
    """Replace ``module`` and its descendants where ``make`` returns a layer; shared layers stay shared."""
    if module not in done:
        replacement = make(module)
        done[module] = module if replacement is None else replacement
        if replacement is None:
            for name, child in module._modules.items():
                if child is not None:
                    module._modules[name] = _replace(child, make, done)
    return done[module]


class LayerNorm(nn.Module):
    """Layer normalization over the channels of ``(N, C, H, W)``.

    Args:
        normalized_shape: number of channels.
        eps: added to the variance.
    """

    def __init__(self, *, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each position of ``(N, C, H, W)`` over its channels."""
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization over all processes, by all-reduced moments.

    Args:
        *args: positional arguments of ``nn.BatchNorm2d``.
        stats_mode: ``""`` weights processes equally; ``"N"`` weights them by batch size, which may then differ between
            processes or be zero.
        **kwargs: keyword arguments of ``nn.BatchNorm2d``.

    Raises:
        ValueError: if ``stats_mode`` is unknown.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stats_mode not in ("", "N"):
            raise ValueError(f"stats_mode must be '' or 'N', got {stats_mode!r}")
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``(N, C, H, W)`` by the statistics of all processes."""
        if world_size() == 1 or not self.training:
            return super().forward(input)
        from torch.distributed.nn.functional import all_reduce

        x = input.float()
        count, channels = x.shape[0], x.shape[1]
        if self._stats_mode == "" and count == 0:
            raise ValueError("an empty batch on a process needs stats_mode='N'")
        if count == 0:
            moments = torch.zeros(2 * channels + 1, device=x.device) + x.sum() * 0
        else:
            ones = torch.ones(1, device=x.device)
            moments = torch.cat([x.mean(dim=(0, 2, 3)), (x * x).mean(dim=(0, 2, 3)), ones])
        weight = float(count) if self._stats_mode == "N" else 1.0
        total = all_reduce(moments * weight)
        mean, square = (total[: 2 * channels] / total[-1].clamp(min=1)).split(channels)
        var = square - mean * mean
        scale = (var + self.eps).rsqrt() * self.weight
        shift = self.bias - mean * scale
        with torch.no_grad():
            momentum = (0.1 if self.momentum is None else self.momentum) * total[-1].clamp(max=1)
            self.running_mean += momentum * (mean - self.running_mean)
            self.running_var += momentum * (var - self.running_var)
        output: Tensor = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return output.to(input.dtype)


class CycleBatchNormList(nn.ModuleList):
    """Batch norms with shared affine parameters, one per pyramid level, used in rotation.

    A head that is applied to ``length`` pyramid levels in order thus keeps separate statistics per level. Each forward
    advances to the next layer, in evaluation mode too.

    Args:
        length: number of layers.
        bn_class: class of the layers, which are built with ``affine=False``.
        **kwargs: arguments of ``bn_class``, with ``num_features``.
    """

    def __init__(
        self, *, length: int, bn_class: Callable[..., nn.Module] = nn.BatchNorm2d, **kwargs: Any
    ) -> None:
        self._affine = kwargs.pop("affine", True)
        super().__init__([bn_class(**kwargs, affine=False) for _ in range(length)])
        if self._affine:
            channels: int = self[0].num_features  # type: ignore[assignment]
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self._position = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, H, W)`` by the layer of the current level."""
        y: Tensor = self[self._position](x)
        self._position = (self._position + 1) % len(self)
        if self._affine:
            return y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"affine={self._affine}"


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": lambda channels: FrozenBatchNorm2d(num_features=channels),
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": lambda channels: LayerNorm(normalized_shape=channels),
}


def get_norm(norm: str | Callable[[int], nn.Module] | None, out_channels: int) -> nn.Module | None:
    """Make a normalization layer.

    Args:
        norm: ``"BN"``, ``"SyncBN"``, ``"FrozenBN"``, ``"GN"`` (32 groups), ``"nnSyncBN"``, ``"naiveSyncBN"``,
            ``"naiveSyncBN_N"`` or ``"LN"`` (over channels); a function of the number of channels; or ``""`` or None.
        out_channels: number of channels.

    Returns:
        The layer, or None for an empty ``norm``.

    Raises:
        ValueError: if the name is unknown.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, or empty; got {norm!r}")
        norm = NORMS[norm]
    return norm(out_channels)
