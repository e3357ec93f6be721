"""What every meta-architecture shares: pixel statistics, batching, ground truth, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.utils import draw_bounding_boxes

from hydet.structures import ImageList, Instances

__all__ = ["MetaArchitecture"]

ModelInput = Mapping[str, Any]


class MetaArchitecture(nn.Module):
    """A whole model: images in, losses or results out.

    Subclasses give ``compute_losses``, ``inference`` and ``losses_and_inference``; ``forward`` picks the first in
    training mode and the second in evaluation mode. None of the three depends on the mode itself, apart from
    layers like batch normalisation and the number of proposals that an R-CNN keeps.

    Args:
        backbone: its ``size_divisibility`` and ``padding_constraints`` decide the padding of a batch.
        pixel_mean: one number a channel, in the scale (0-255) and channel order of the input.
        pixel_std: likewise; 1 where the first convolution has absorbed the deviation.
        input_format: channel order that the weights expect, ``"RGB"`` or ``"BGR"``. Whoever prepares images
            (``hydet.data.InputMapper``) reads it; the model itself never reorders channels.
        vis_period: every so many training steps a picture goes to ``on_picture``; 0 disables.

    Attributes:
        on_picture: called as ``on_picture(name, picture)`` with a ``(3, H, W)`` uint8 RGB tensor. Set it on the
            instance (``hydet.engine`` does when it has a logger); ``None`` draws nothing.
    """

    on_picture: Callable[[str, Tensor], None] | None = None
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(
                f"pixel_mean has {len(pixel_mean)} channels, pixel_std {len(pixel_std)}: they must agree"
            )
        if any(std <= 0 for std in pixel_std):
            raise ValueError(f"pixel_std must be positive, got {tuple(pixel_std)}")
        if vis_period < 0:
            raise ValueError(f"vis_period counts steps and cannot be negative, got {vis_period}")
        if vis_period > 0 and input_format is None:
            raise ValueError("vis_period needs input_format, to know which channel is red")
        self.backbone: Any = backbone
        self.input_format = input_format
        self.vis_period = vis_period
        self._training_forwards = 0
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).float().view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lives; inputs are moved there."""
        return self.pixel_mean.device

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model predicts, and so which labels it learns from and which metrics fit it.

        Of ``box``, ``mask``, ``keypoints``, ``rotated`` (boxes), ``semantic``, ``panoptic``, ``proposals`` and
        ``rotated_proposals``, the one that matters most first.
        """
        return ("box",)

    def forward(self, batched_inputs: Sequence[ModelInput]) -> Any:
        """Losses in training mode, results in evaluation mode.

        Args:
            batched_inputs: one mapping an image: ``image`` (C, H, W), and as the architecture needs them
                ``instances``, ``sem_seg``, ``proposals``, ``height`` and ``width`` of the output.

        Returns:
            ``dict[str, Tensor]`` of scalar losses, or a list with one ``dict`` of results an image.
        """
        return self.compute_losses(batched_inputs) if self.training else self.inference(batched_inputs)

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Losses against the ground truth in ``batched_inputs``, in any mode."""
        raise NotImplementedError

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[Any]:
        """Results for ``batched_inputs``, in any mode, without looking at the ground truth."""
        raise NotImplementedError

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[Any]]:
        """Both from one pass through the backbone, in any mode."""
        raise NotImplementedError

    def preprocess_image(self, batched_inputs: Sequence[ModelInput]) -> ImageList:
        """Normalise, pad with zeros on the right and below, and batch the ``image`` of every input.

        Raises:
            ValueError: if an image has another number of channels than ``pixel_mean``, or holds NaN or infinity. On a
                GPU the latter goes unseen, since it would have to be waited for.
        """
        images = [self._normalized(x) for x in batched_inputs]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _normalized(self, entry: ModelInput) -> Tensor:
        image = entry["image"]
        if image.ndim != 3 or image.shape[0] != self.pixel_mean.shape[0]:
            raise ValueError(
                f"{describe(entry)}: image has shape {tuple(image.shape)}, "
                f"expected ({self.pixel_mean.shape[0]}, H, W)"
            )
        _check_pixels(entry)
        return (image.to(self.device) - self.pixel_mean) / self.pixel_std

    def _ground_truth(
        self, batched_inputs: Sequence[ModelInput], key: str = "instances", *, num_classes: int | None = None
    ) -> list[Any]:
        for entry in batched_inputs:
            if key not in entry:
                raise ValueError(f"{describe(entry)}: losses need {key!r} in every input")
            if key == "instances":
                _check_boxes(entry)
                if num_classes is not None:
                    _check_classes(entry, num_classes)
        return [entry[key].to(self.device) for entry in batched_inputs]

    def _picture_is_due(self) -> bool:
        """Counts training steps; true when a picture was asked for and somebody takes it."""
        if not (self.training and self.vis_period > 0):
            return False
        self._training_forwards += 1
        return self.on_picture is not None and self._training_forwards % self.vis_period == 0

    def _show_boxes(
        self, entry: ModelInput, boxes: Tensor, title: str, *, ground_truth: Instances | None = None
    ) -> None:
        """Send one picture: ground truth (left, green) beside ``boxes`` (right, orange), in input pixels."""
        if self.on_picture is None:
            return
        image = entry["image"].detach().cpu()
        if self.input_format == "BGR":
            image = image.flip(0)
        image = image[:3].clamp(0, 255).to(torch.uint8)
        truth = entry.get("instances") if ground_truth is None else ground_truth
        truth_boxes = torch.zeros(0, 4) if truth is None else _upright(truth.gt_boxes.tensor.detach().cpu())
        sides = []
        for found, color in ((truth_boxes, "lime"), (_upright(boxes.detach().cpu()), "orange")):
            found = found[(found[:, 2:] > found[:, :2]).all(dim=1)]
            sides.append(draw_bounding_boxes(image, found, colors=color) if found.shape[0] else image)
        self.on_picture(title, torch.cat(sides, dim=2))


def _check_pixels(entry: ModelInput) -> None:
    image = entry["image"]
    if torch.compiler.is_compiling() or not image.is_floating_point() or image.device.type != "cpu":
        return
    # The sum is a hundred times faster than looking at each pixel, and not finite if one is not.
    if not bool(image.sum(dtype=torch.float32).isfinite()) and not bool(image.isfinite().all()):
        raise ValueError(f"{describe(entry)}: the image holds values that are not finite")


def _check_classes(entry: ModelInput, num_classes: int) -> None:
    """A class too high would count as background, or end the process on a GPU."""
    classes = entry["instances"].gt_classes
    wrong = (classes < 0) | (classes >= num_classes)
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{describe(entry)}: ground-truth class {int(classes[i])} of box {i}; "
            f"the model has classes 0 to {num_classes - 1}"
        )


def _check_boxes(entry: ModelInput) -> None:
    """A degenerate box would make the loss NaN steps later, when nobody knows any more where it came from."""
    boxes = entry["instances"].gt_boxes.tensor
    sides = boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]
    wrong = ~(boxes.isfinite().all(dim=1) & (sides > 0).all(dim=1))
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{describe(entry)}: ground-truth box {i} is {boxes[i].tolist()}; boxes must be finite with positive sides"
        )


def _upright(boxes: Tensor) -> Tensor:
    """Rotated boxes (cx, cy, w, h, degrees) become the upright boxes around them; others stay."""
    if boxes.shape[1] != 5:
        return boxes
    center, (w, h), angle = boxes[:, :2], boxes[:, 2:4].unbind(1), boxes[:, 4].deg2rad()
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half = torch.stack([cos * w + sin * h, sin * w + cos * h], dim=1) / 2
    return torch.cat([center - half, center + half], dim=1)


def describe(entry: ModelInput) -> str:
    """How to name one input in an error message."""
    for key in ("file_name", "image_id"):
        if entry.get(key) is not None:
            return f"{key} {entry[key]}"
    return "an input without file_name or image_id"
