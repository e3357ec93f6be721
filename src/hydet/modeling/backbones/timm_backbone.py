"""Backbones of the timm library."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.computed_buffers import ComputedBuffers

from .activation_checkpointing import StatisticsGuard
from .adapted_backbone import AdaptedBackbone, names_from_strides

__all__ = ["TimmBackbone"]

WITHOUT_WEIGHTS: Mapping[str, object] = {"pretrained": False, "checkpoint_path": ""}


class TimmBackbone(AdaptedBackbone, ComputedBuffers):
    """A timm network that supports ``features_only``.

    Pretrained weights expect RGB images, normalized by ``pixel_mean`` and ``pixel_std`` of this object.

    Args:
        model_name: timm name, such as ``convnext_tiny.fb_in22k`` or ``swin_tiny_patch4_window7_224``.
        pretrained: download weights. timm inflates the first layer for other than three channels.
        in_channels: channels of the image.
        out_indices: indices of the features to return, from fine to coarse; all features by default.
        out_names: names of the features; by default ``res2``, ``res3``, ... by log2 of their strides, or ``feat0``,
            ``feat1``, ... if strides are equal, as in plain transformers.
        frozen: freeze all parameters and keep the network in evaluation mode.
        freeze_norm: freeze statistics and affine parameters of batch norms.
        size_divisibility: height and width of the input must be multiples of this; the coarsest stride by default.
        square_pad: if positive, images are padded to this height and width. Set automatically for a network with a
            fixed input size.
        use_act_checkpoint: recompute activations in the backward pass instead of storing them, if timm supports it.
        model_options: further arguments of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ImportError: if timm is not installed.
        ValueError: if the network is unknown or does not support ``features_only``.
    """

    _statistics: StatisticsGuard | None = None

    def __init__(
        self,
        *,
        model_name: str,
        pretrained: bool = False,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        out_names: Sequence[str] | None = None,
        frozen: bool = False,
        freeze_norm: bool = False,
        size_divisibility: int | None = None,
        square_pad: int = 0,
        use_act_checkpoint: bool = False,
        model_options: Mapping[str, object] | None = None,
    ) -> None:
        options: dict[str, Any] = {"pretrained": pretrained, "in_chans": in_channels, **(model_options or {})}
        if out_indices is not None:
            options["out_indices"] = tuple(out_indices)
        model, any_size = create_feature_extractor(model_name, options)
        strides = [int(stride) for stride in model.feature_info.reduction()]  # type: ignore[union-attr, operator]
        channels = model.feature_info.channels()  # type: ignore[union-attr, operator]
        config = getattr(model, "pretrained_cfg", None) or {}
        if config.get("fixed_input_size") and not any_size and not square_pad:
            square_pad = options.get("img_size") or config["input_size"][-1]
        super().__init__(
            model=model,
            frozen=frozen,
            freeze_norm=freeze_norm,
            size_divisibility=max(strides) if size_divisibility is None else size_divisibility,
            square_pad=square_pad,
        )
        names = names_from_strides(strides) if out_names is None else list(out_names)
        if len(names) != len(strides):
            raise ValueError(f"out_names needs {len(strides)} names, for strides {strides}; got {names}")
        self._model_name, self._options = model_name, options
        persistent = set(model.state_dict())
        self.track_computed_buffers(f"model.{n}" for n, _ in model.named_buffers() if n not in persistent)
        self.channels_last_output = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self.pixel_mean = [255 * value for value in config.get("mean", (0.485, 0.456, 0.406))]
        self.pixel_std = [255 * value for value in config.get("std", (0.229, 0.224, 0.225))]
        self._out_features = names
        self._out_feature_channels = dict(zip(names, channels))
        self._out_feature_strides = dict(zip(names, strides))
        if use_act_checkpoint:
            self.use_act_checkpoint = True

    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return the buffers of the network outside the state dict, such as the position indices of a Swin transformer.

        They come from a second network with the same arguments.
        """
        if not self._computed_names:
            return {}
        with torch.random.fork_rng(devices=[]):
            network, _ = create_feature_extractor(self._model_name, {**self._options, **WITHOUT_WEIGHTS})
        return {name: network.get_buffer(name.removeprefix("model.")) for name in self._computed_names}

    @property
    def use_act_checkpoint(self) -> bool | None:
        """True if activations are recomputed; None if timm does not support it for this network."""
        return getattr(self, "_checkpointing", False) if self._checkpointable() is not None else None

    @use_act_checkpoint.setter
    def use_act_checkpoint(self, enabled: bool | None) -> None:
        target = self._checkpointable()
        if target is None:
            raise ValueError("timm does not support activation checkpointing for this network")
        self._checkpointing = bool(enabled)
        target.set_grad_checkpointing(self._checkpointing)  # type: ignore[operator]
        if self._statistics is not None:
            self._statistics.close()
        self._statistics = StatisticsGuard(self.model) if enabled else None

    def _checkpointable(self) -> nn.Module | None:
        for module in (self.model, getattr(self.model, "model", None)):
            if hasattr(module, "set_grad_checkpointing"):
                return module
        return None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps.

        Args:
            x: ``(N, in_channels, H, W)`` images.

        Returns:
            ``(N, C_l, H / stride, W / stride)`` by name, from fine to coarse.
        """
        features = self.model(x) if self._statistics is None else self._statistics.run(self.model, x)
        if self.channels_last_output:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return dict(zip(self._out_features, features))


def create_feature_extractor(model_name: str, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    """Create a timm network that returns feature maps.

    Args:
        model_name: timm name.
        options: arguments of ``timm.create_model``.

    Returns:
        The network, and True if it was switched to accept images of any size.

    Raises:
        ImportError: if timm is not installed.
        ValueError: if the network is unknown or does not support ``features_only``.
    """
    timm = _import_timm()
    if not timm.is_model(model_name):
        close = difflib.get_close_matches(model_name, timm.list_models(), n=3)
        raise ValueError(
            f"timm has no network {model_name!r}" + (f"; similar names: {', '.join(close)}" if close else "")
        )
    # Transformers accept other sizes only with an argument that networks for any size reject.
    for any_size in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            model = timm.create_model(model_name, features_only=True, **{**any_size, **options})
            return model, bool(any_size)
        except TypeError as error:
            if not any_size or next(iter(any_size)) not in str(error):
                raise
        except RuntimeError as error:
            if "features_only" in str(error):
                raise ValueError(f"timm cannot extract features from {model_name!r}: {error}") from error
            raise
    raise AssertionError("the last attempt returns or raises")


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ImportError("TimmBackbone needs timm: pip install 'hydet[timm]'") from error
    return timm
