"""What every meta-architecture shares: pixel statistics, batching, ground truth, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.training_pictures import DrawsTraining, beside_ground_truth, checked_period
from hydet.structures import ImageList, Instances

__all__ = ["MetaArchitecture"]

ModelInput = Mapping[str, Any]
SHOWN_PROPOSALS = 20


class MetaArchitecture(DrawsTraining, nn.Module):
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
        vis_period: every so many training steps a picture goes to ``on_picture``, see ``DrawsTraining``; 0 disables.
    """

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
        if vis_period > 0 and input_format is None:
            raise ValueError("vis_period needs input_format, to know which channel is red")
        self.backbone: Any = backbone
        self.input_format = input_format
        self.vis_period = checked_period(vis_period)
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

    def _show_proposals(self, entry: ModelInput, proposals: Instances) -> None:
        """Send a picture of the best of them, or the first ones if they have no ``objectness_logits``."""
        boxes = proposals.proposal_boxes.tensor
        if proposals.has("objectness_logits"):
            boxes = boxes[proposals.objectness_logits.argsort(descending=True)]
        self._show_boxes(entry, boxes[:SHOWN_PROPOSALS], "Left: ground truth. Right: proposals")

    def _show_boxes(self, entry: ModelInput, boxes: Tensor, title: str) -> None:
        """Send one picture: the ground truth beside ``boxes``, in pixels of the input."""
        if self.on_picture is not None:
            truth = entry["instances"].gt_boxes.tensor
            self.on_picture(
                title, beside_ground_truth(entry["image"], truth, boxes, bgr=self.input_format == "BGR")
            )


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


def describe(entry: ModelInput) -> str:
    """How to name one input in an error message."""
    for key in ("file_name", "image_id"):
        if entry.get(key) is not None:
            return f"{key} {entry[key]}"
    return "an input without file_name or image_id"
