"""Augmentations on ``torchvision.tv_tensors``, for what torchvision does otherwise or not at all.

They take and give whatever ``torchvision.transforms.v2`` does, so both kinds can be mixed. Points are mirrored like
boxes, ``x -> W - x``; rotated boxes follow the formulas of :class:`hydet.structures.RotatedBoxes`; nothing is clamped
to the image: what a crop leaves outside is for :class:`hydet.data.InputMapper` to clip and drop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv_functional

from hydet.structures import RotatedBoxes

__all__ = [
    "ColorJitter",
    "FixedSizeCrop",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "ResizeShortestEdge",
    "ScaleJitter",
    "shortest_edge_size",
]

_ROTATED = tv_tensors.BoundingBoxFormat.CXCYWHR
_UPRIGHT = tv_tensors.BoundingBoxFormat.XYXY


def shortest_edge_size(height: int, width: int, short: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side ``short``, or less where the longer one would exceed ``max_size``."""
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if max_size is not None and max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def _image_size(flat_inputs: Sequence[Any]) -> tuple[int, int]:
    for value in flat_inputs:
        if isinstance(value, tv_tensors.Image | tv_tensors.Mask | tv_tensors.Video):
            return value.shape[-2], value.shape[-1]
        if isinstance(value, tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
            return value.canvas_size
    for value in flat_inputs:
        if isinstance(value, Tensor) and value.ndim >= 3:
            return value.shape[-2], value.shape[-1]
    raise TypeError("a transform needs an image, a mask, boxes or keypoints among its inputs")


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _boxes_like(
    boxes: Tensor, like: tv_tensors.BoundingBoxes, size: tuple[int, int]
) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(
        boxes, format=like.format, canvas_size=size, clamping_mode=like.clamping_mode
    )


def _plain_boxes(boxes: tv_tensors.BoundingBoxes) -> Tensor:
    if boxes.format not in (_UPRIGHT, _ROTATED):
        raise TypeError(f"boxes must have the format XYXY or CXCYWHR here, got {boxes.format}")
    return boxes.as_subclass(Tensor)


def _is_map(value: Any) -> bool:
    return isinstance(value, tv_tensors.Mask)


class _Resizing(v2.Transform):
    """Base of what resizes: ``make_params`` gives ``size``, the new (height, width)."""

    exact: bool = True

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        new = params["size"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            (height, width), boxes = inpt.canvas_size, _plain_boxes(inpt)
            sx, sy = new[1] / width, new[0] / height
            if inpt.format == _ROTATED:
                scaled = RotatedBoxes(boxes.clone())
                scaled.scale(sx, sy)
                return _boxes_like(scaled.tensor, inpt, new)
            return _boxes_like(boxes * boxes.new_tensor([sx, sy, sx, sy]), inpt, new)
        if isinstance(inpt, tv_tensors.KeyPoints):
            height, width = inpt.canvas_size
            points = inpt.as_subclass(Tensor) * inpt.new_tensor(
                [new[1] / width, new[0] / height]
            ).as_subclass(Tensor)
            return tv_tensors.KeyPoints(points, canvas_size=new)
        if tuple(inpt.shape[-2:]) == tuple(new):
            return inpt
        if _is_map(inpt):
            return tv_tensors.wrap(_resized_map(inpt.as_subclass(Tensor), new), like=inpt)
        if (
            self.exact
            and isinstance(inpt, tv_tensors.Image)
            and inpt.dtype == torch.uint8
            and inpt.shape[-3] == 3
        ):
            return tv_tensors.wrap(_resized_by_pillow(inpt.as_subclass(Tensor), new), like=inpt)
        return tv_functional.resize(inpt, list(new), antialias=True)


def _resized_by_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.ndim != 3:
        return torch.stack([_resized_by_pillow(one, size) for one in image])
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    resized = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _resized_map(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest neighbour, of any dtype and number of leading axes."""
    rows = ((torch.arange(size[0]) + 0.5) * (mask.shape[-2] / size[0])).long().clamp_(max=mask.shape[-2] - 1)
    columns = (
        ((torch.arange(size[1]) + 0.5) * (mask.shape[-1] / size[1])).long().clamp_(max=mask.shape[-1] - 1)
    )
    return mask[..., rows, :][..., columns]


class ResizeShortestEdge(_Resizing):
    """Resize so that the shorter side has one of several lengths.

    Args:
        short: length, or lengths, of the shorter side in pixels.
        max_size: bound of the longer side; None for none.
        sampling: ``"choice"``: one of ``short`` at random; ``"range"``: any length from the first to the second.
        exact: resize 8-bit images by Pillow, as weights from elsewhere expect. False leaves them to torch, which is
            about three times as fast, and one grey level off in a few pixels of a hundred.

    Raises:
        ValueError: if ``short`` is empty or not positive, or a range has not two ends in order.
    """

    def __init__(
        self,
        *,
        short: int | Sequence[int],
        max_size: int | None = None,
        sampling: Literal["choice", "range"] = "choice",
        exact: bool = True,
    ) -> None:
        super().__init__()
        lengths = (short,) if isinstance(short, int) else tuple(short)
        if not lengths or min(lengths) < 1 or (max_size is not None and max_size < 1):
            raise ValueError(
                f"ResizeShortestEdge: lengths must be positive, got short={short}, max_size={max_size}"
            )
        if sampling not in ("choice", "range"):
            raise ValueError(f'ResizeShortestEdge: sampling is "choice" or "range", got {sampling!r}')
        if sampling == "range" and (len(lengths) not in (1, 2) or lengths[0] > lengths[-1]):
            raise ValueError(f"ResizeShortestEdge: a range is [smallest, largest], got short={short}")
        self.short = lengths
        self.max_size = max_size
        self.sampling = sampling
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if len(self.short) == 1:
            short = self.short[0]
        elif self.sampling == "range":
            short = int(torch.randint(self.short[0], self.short[1] + 1, ()))
        else:
            short = self.short[int(torch.randint(len(self.short), ()))]
        return {"size": shortest_edge_size(*_image_size(flat_inputs), short, self.max_size)}


class Resize(_Resizing):
    """Resize to a fixed (height, width), whatever the aspect ratio was; ``exact`` as in ``ResizeShortestEdge``."""

    def __init__(self, *, size: Sequence[int], exact: bool = True) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"Resize: size is (height, width), both positive; got {size}")
        self.size = (int(size[0]), int(size[1]))
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"size": self.size}


class ScaleJitter(_Resizing):
    """Resize by a random factor, keeping the aspect ratio; with ``FixedSizeCrop`` this is large-scale jitter.

    Args:
        size: (height, width) that the image fits into at a factor of 1.
        min_scale: smallest factor.
        max_scale: largest factor.
        exact: see ``ResizeShortestEdge``.

    Source: Ghiasi et al. 2021 (arXiv:2012.07177), section 3.
    """

    def __init__(
        self, *, size: Sequence[int], min_scale: float = 0.1, max_scale: float = 2.0, exact: bool = True
    ) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1 or not 0 < min_scale <= max_scale:
            raise ValueError(
                f"ScaleJitter: size (height, width) and 0 < min_scale <= max_scale, got {size}, {min_scale}, {max_scale}"
            )
        self.size = (int(size[0]), int(size[1]))
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.exact = exact

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _image_size(flat_inputs)
        factor = _uniform(self.min_scale, self.max_scale)
        scale = min(self.size[0] * factor / height, self.size[1] * factor / width)
        return {"size": (max(round(height * scale), 1), max(round(width * scale), 1))}


class _Flip(v2.Transform):
    axis: int  # 1 mirrors left and right, 0 top and bottom

    def __init__(self, *, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must lie in [0, 1], got {p}")
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"flip": bool(torch.rand(()) < self.p)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not params["flip"]:
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            size, boxes = inpt.canvas_size, _plain_boxes(inpt).clone()
            length = size[self.axis]
            x = 1 - self.axis  # the coordinate that changes
            if inpt.format == _ROTATED:
                boxes[:, x] = length - boxes[:, x]
                boxes[:, 4] = -boxes[:, 4]
            else:
                boxes[:, [x, x + 2]] = length - boxes[:, [x + 2, x]]
            return _boxes_like(boxes, inpt, size)
        if isinstance(inpt, tv_tensors.KeyPoints):
            points = inpt.as_subclass(Tensor).clone()
            points[..., 1 - self.axis] = inpt.canvas_size[self.axis] - points[..., 1 - self.axis]
            return tv_tensors.KeyPoints(points, canvas_size=inpt.canvas_size)
        return tv_tensors.wrap(inpt.as_subclass(Tensor).flip(-1 if self.axis == 1 else -2), like=inpt)


class RandomHorizontalFlip(_Flip):
    """Mirror left and right with probability ``p``; points and boxes map ``x -> W - x``, angles change sign.

    The input mapper then exchanges keypoints such as left and right eye.
    """

    axis = 1


class RandomVerticalFlip(_Flip):
    """Mirror top and bottom with probability ``p``."""

    axis = 0


class _Cropping(v2.Transform):
    """Base of what crops: ``make_params`` gives ``top``, ``left``, ``size``; below and right may lie outside."""

    pad_value: float = 128.0
    pad_label: int = 255

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        top, left, (height, width) = params["top"], params["left"], params["size"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            boxes = _plain_boxes(inpt)
            shift = [left, top, 0, 0, 0] if inpt.format == _ROTATED else [left, top, left, top]
            return _boxes_like(boxes - boxes.new_tensor(shift), inpt, (height, width))
        if isinstance(inpt, tv_tensors.KeyPoints):
            points = inpt.as_subclass(Tensor)
            return tv_tensors.KeyPoints(points - points.new_tensor([left, top]), canvas_size=(height, width))
        plain = inpt.as_subclass(Tensor)[..., top : top + height, left : left + width]
        below, right = height - plain.shape[-2], width - plain.shape[-1]
        if below > 0 or right > 0:
            fill = self.pad_value
            if _is_map(inpt):  # (H, W) holds labels, (n, H, W) the masks of n objects
                fill = self.pad_label if inpt.ndim == 2 else 0
            plain = F.pad(plain, (0, right, 0, below), value=fill)
        return tv_tensors.wrap(plain, like=inpt)


class RandomCrop(_Cropping):
    """Cut out a random window.

    Args:
        size: (height, width), of which ``mode`` tells the meaning.
        mode: ``"relative"``: fractions of the image; ``"relative_range"``: fractions anywhere from these to 1;
            ``"absolute"``: pixels, less where the image is smaller; ``"absolute_range"``: each side anywhere from
            the first to the second number of pixels.

    Raises:
        ValueError: for another mode, and sizes that it does not allow.
    """

    MODES = ("relative", "relative_range", "absolute", "absolute_range")

    def __init__(self, *, size: Sequence[float], mode: str = "relative_range") -> None:
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f"RandomCrop: mode is one of {list(self.MODES)}, got {mode!r}")
        if len(size) != 2 or min(size) <= 0:
            raise ValueError(f"RandomCrop: size is two positive numbers, got {size}")
        if mode.startswith("relative") and max(size) > 1:
            raise ValueError(f"RandomCrop: relative sizes lie in (0, 1], got {size}")
        if mode == "absolute_range" and size[0] > size[1]:
            raise ValueError(f"RandomCrop: a range is [smallest, largest], got {size}")
        self.size = (size[0], size[1])
        self.mode = mode

    def _window(self, height: int, width: int) -> tuple[int, int]:
        a, b = self.size
        if self.mode == "relative":
            return int(height * a + 0.5), int(width * b + 0.5)
        if self.mode == "relative_range":
            return int(height * _uniform(a, 1) + 0.5), int(width * _uniform(b, 1) + 0.5)
        if self.mode == "absolute":
            return min(int(a), height), min(int(b), width)
        low, high = int(a), int(b)
        return tuple(int(torch.randint(min(s, low), min(s, high) + 1, ())) for s in (height, width))  # type: ignore[return-value]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _image_size(flat_inputs)
        h, w = (max(side, 1) for side in self._window(height, width))
        top, left = (int(torch.randint(room + 1, ())) for room in (height - h, width - w))
        return {"top": top, "left": left, "size": (h, w)}


class FixedSizeCrop(_Cropping):
    """Cut out a random window of a fixed size; where the image is smaller, pad it on the right and below.

    Args:
        size: (height, width) of the result.
        pad: False leaves a smaller image as it is.
        pad_value: grey level of the padding.
        pad_label: semantic label of the padding.
    """

    def __init__(
        self, *, size: Sequence[int], pad: bool = True, pad_value: float = 128.0, pad_label: int = 255
    ) -> None:
        super().__init__()
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"FixedSizeCrop: size is (height, width), both positive; got {size}")
        self.size = (int(size[0]), int(size[1]))
        self.pad = pad
        self.pad_value = pad_value
        self.pad_label = pad_label

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        sides = _image_size(flat_inputs)
        top, left = (int(_uniform(0, max(s - new, 0)) + 0.5) for s, new in zip(sides, self.size))
        size = self.size if self.pad else tuple(min(s, new) for s, new in zip(sides, self.size))
        return {"top": top, "left": left, "size": size}


class ColorJitter(v2.Transform):
    """Change brightness, contrast, saturation and hue of an RGB image by random amounts.

    Args:
        brightness: factors are drawn from [1 - x, 1 + x]; 0 leaves it. A pair gives both ends.
        contrast: likewise, towards the mean grey of the image.
        saturation: likewise, towards the grey of each pixel.
        hue: turns of the colour circle are drawn from [-x, x], x at most 0.5.
        p: probability that anything is changed.
    """

    _GREY = (0.299, 0.587, 0.114)

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
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        if not 0 <= hue <= 0.5 or not 0 <= p <= 1:
            raise ValueError(f"ColorJitter: hue in [0, 0.5] and p in [0, 1], got {hue} and {p}")
        self.hue = hue
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if float(torch.rand(())) >= self.p:
            return {"change": False}
        ranges = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        drawn = {name: _uniform(*ends) for name, ends in ranges.items()}
        return {"change": True, "hue": _uniform(-self.hue, self.hue), **drawn}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not params["change"] or not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = inpt.as_subclass(Tensor).float()
        weights = image.new_tensor(self._GREY)[:, None, None]
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


def _factors(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    low, high = (max(1 - value, 0.0), 1 + value) if isinstance(value, int | float) else value
    if not 0 <= low <= high or math.isinf(high):
        raise ValueError(f"ColorJitter: {name} must be a number >= 0 or [low, high], got {value}")
    return float(low), float(high)
