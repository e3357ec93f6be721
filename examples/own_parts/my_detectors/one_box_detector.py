"""A whole detector that knows nothing of hydet but the form of its inputs and results."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.structures import Boxes, Instances


class OneBoxDetector(nn.Module):
    """One object an image: its class and its box, from the picture scaled to a square.

    Losses in training mode, results in evaluation mode; that is all that training, evaluation and prediction ask for.
    A model that also has ``losses_and_inference`` gets a validation loss.

    Args:
        num_classes: K.
        side: pixels of the square.
    """

    def __init__(self, *, num_classes: int, side: int = 32) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.side = side
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(512, num_classes + 4),
        )

    def forward(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses by name in training mode, one ``{"instances": ...}`` an image in evaluation mode."""
        squares = [self._square(entry["image"]) for entry in batched_inputs]
        logits, boxes = self.layers(torch.stack(squares)).split([self.num_classes, 4], dim=1)
        boxes = boxes.sigmoid()  # fractions of the image
        return (
            self._losses(batched_inputs, logits, boxes)
            if self.training
            else self._results(batched_inputs, logits, boxes)
        )

    def _square(self, image: Tensor) -> Tensor:
        image = image.to(self.layers[0].weight.device).float() / 255
        return F.interpolate(image[None], size=(self.side, self.side), mode="bilinear", antialias=True)[0]

    def _losses(
        self, batched_inputs: Sequence[Mapping[str, Any]], logits: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        class_loss, box_loss = 0 * logits.sum(), 0 * boxes.sum()
        for i, entry in enumerate(batched_inputs):
            truth = entry["instances"].to(logits.device)
            if len(truth):
                first = int(truth.gt_boxes.area().argmax())
                height, width = truth.image_size
                box = truth.gt_boxes.tensor[first] / logits.new_tensor([width, height, width, height])
                class_loss = class_loss + F.cross_entropy(logits[i], truth.gt_classes[first])
                box_loss = box_loss + (boxes[i] - box).abs().mean()
        return {"loss_cls": class_loss / len(logits), "loss_box": box_loss / len(logits)}

    def _results(
        self, batched_inputs: Sequence[Mapping[str, Any]], logits: Tensor, boxes: Tensor
    ) -> list[dict[str, Any]]:
        scores, classes = logits.softmax(dim=1).max(dim=1)
        results = []
        for i, entry in enumerate(batched_inputs):
            height = entry.get("height", entry["image"].shape[1])
            width = entry.get("width", entry["image"].shape[2])
            box = torch.cat([boxes[i, :2].minimum(boxes[i, 2:]), boxes[i, :2].maximum(boxes[i, 2:])])
            found = Instances(
                (height, width),
                pred_boxes=Boxes(box[None] * box.new_tensor([width, height, width, height])),
                scores=scores[i : i + 1],
                pred_classes=classes[i : i + 1],
            )
            results.append({"instances": found})
        return results
