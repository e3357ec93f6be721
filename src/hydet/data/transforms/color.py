"""Random changes of color."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv_functional

from hydet.data.transforms.geometric import Params, draw_uniform

__all__ = ["ColorJitter"]


class ColorJitter(v2.Transform):
    """Changes brightness, contrast, saturation and hue of an RGB image by random amounts.

    Unlike torchvision's transform, it computes in float and rounds once, except for the hue.

    Args:
        brightness: the factor is drawn from [1 - brightness, 1 + brightness], or from a given pair (low, high).
        contrast: range of the factor of the difference from the mean gray of the image, given like ``brightness``.
        saturation: range of the factor of the difference from the gray of each pixel, given like ``brightness``.
        hue: the shift is drawn from [-hue, hue], in turns of the color circle; at most 0.5.
        p: probability of any change.

    Raises:
        ValueError: if a value is out of its range.
    """

    _GRAY = (0.299, 0.587, 0.114)  # weights of R, G and B in luma (ITU-R BT.601)

    def __init__(
        self,
        *,
        brightness: float | Sequence[float] = 0.0,
        contrast: float | Sequence[float] = 0.0,
        saturation: float | Sequence[float] = 0.0,
        hue: float = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        self.brightness = _factor_range("brightness", brightness)
        self.contrast = _factor_range("contrast", contrast)
        self.saturation = _factor_range("saturation", saturation)
        if not 0 <= hue <= 0.5 or not 0 <= p <= 1:
            raise ValueError(f"ColorJitter: hue must lie in [0, 0.5] and p in [0, 1], got {hue} and {p}")
        self.hue = hue
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> Params:
        """Draw the decision to change the image, and the amounts."""
        if float(torch.rand(())) >= self.p:
            return {"change": False}
        ranges = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        factors = {name: draw_uniform(*ends) for name, ends in ranges.items()}
        return {"change": True, "hue": draw_uniform(-self.hue, self.hue), **factors}

    def transform(self, inpt: Any, params: Params) -> Any:
        """Change an image; return any other input unchanged."""
        if not params["change"] or not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = inpt.as_subclass(Tensor).float()  # (3, H, W)
        weights = image.new_tensor(self._GRAY)[:, None, None]
        image = image * params["brightness"]
        if params["contrast"] != 1:
            mean = (image * weights).sum(dim=0).mean()
            image = torch.lerp(mean, image, params["contrast"])
        if params["saturation"] != 1:
            image = torch.lerp((image * weights).sum(dim=0, keepdim=True), image, params["saturation"])
        image = image.round_().clamp_(0, 255).to(inpt.dtype)
        if params["hue"]:
            image = tv_functional.adjust_hue(image, params["hue"])
        return tv_tensors.wrap(image, like=inpt)


def _factor_range(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    low, high = (max(1 - value, 0.0), 1 + value) if isinstance(value, int | float) else value
    if not 0 <= low <= high or math.isinf(high):
        raise ValueError(f"ColorJitter: {name} must be a number >= 0 or [low, high], got {value}")
    return float(low), float(high)
