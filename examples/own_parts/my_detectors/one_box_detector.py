"""A whole detector without hydet's base classes; it only uses the form of hydet's inputs and results."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.structures import Boxes, Instances, Losses, ModelInput, ModelOutput


class OneBoxDetector(nn.Module):
    """Predicts one object per image, its class and its box, from the image resized to a square.

    The model returns losses in training mode and results in evaluation mode. Training, evaluation and prediction need
    nothing else. A model that also has ``losses_and_inference`` gets a validation loss.

    Args:
        num_classes: K.
        side: side of the square, in pixels.
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

    def forward(self, batched_inputs: Sequence[ModelInput]) -> Losses | list[ModelOutput]:
        """Return losses by name in training mode, one ``{"instances": ...}`` per image in evaluation mode."""
        squares = [self._square(entry["image"]) for entry in batched_inputs]
        logits, boxes = self.layers(torch.stack(squares)).split([self.num_classes, 4], dim=1)
        boxes = boxes.sigmoid()  # (B, 4) as fractions of the image
        if self.training:
            return self._losses(batched_inputs, logits, boxes)
        return self._results(batched_inputs, logits, boxes)

    def _square(self, image: Tensor) -> Tensor:
        image = image.to(next(self.parameters()).device).float() / 255
        return F.interpolate(image[None], size=(self.side, self.side), mode="bilinear", antialias=True)[0]

    def _losses(self, batched_inputs: Sequence[ModelInput], logits: Tensor, boxes: Tensor) -> Losses:
        class_loss, box_loss = 0 * logits.sum(), 0 * boxes.sum()
        for i, entry in enumerate(batched_inputs):
            ground_truth = entry["instances"].to(logits.device)
            if len(ground_truth):
                largest = int(ground_truth.gt_boxes.area().argmax())
                height, width = ground_truth.image_size
                box = ground_truth.gt_boxes.tensor[largest] / logits.new_tensor(
                    [width, height, width, height]
                )
                class_loss = class_loss + F.cross_entropy(logits[i], ground_truth.gt_classes[largest])
                box_loss = box_loss + (boxes[i] - box).abs().mean()
        return {"loss_cls": class_loss / len(logits), "loss_box": box_loss / len(logits)}

    def _results(
        self, batched_inputs: Sequence[ModelInput], logits: Tensor, boxes: Tensor
    ) -> list[ModelOutput]:
        scores, classes = logits.softmax(dim=1).max(dim=1)
        results: list[ModelOutput] = []
        for i, entry in enumerate(batched_inputs):
            height = entry.get("height", entry["image"].shape[1])
            width = entry.get("width", entry["image"].shape[2])
            box = torch.cat([boxes[i, :2].minimum(boxes[i, 2:]), boxes[i, :2].maximum(boxes[i, 2:])])
            detections = Instances(
                (height, width),
                pred_boxes=Boxes(box[None] * box.new_tensor([width, height, width, height])),
                scores=scores[i : i + 1],
                pred_classes=classes[i : i + 1],
            )
            results.append({"instances": detections})
        return results
