"""A whole detector on hydet's base class, which normalizes, pads and batches the images."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import batched_nms, giou_loss, sigmoid_focal_loss
from hydet.modeling import Backbone, MetaArchitecture, detector_postprocess
from hydet.structures import Boxes, Instances, Losses, ModelInput, ModelOutput

ImageSizes = list[tuple[int, int]]

# B images, H x W cells of the finest feature map, K classes.


class CenterDetector(MetaArchitecture):
    """Predicts one box per cell of a feature map; each object is assigned to the cell that contains its center.

    A much simplified version of Zhou et al. 2019 (arXiv:1904.07850).

    Args:
        backbone: images to feature maps.
        in_features: names of feature maps with equal channels, from fine to coarse. Coarser ones are upsampled to the
            finest and added.
        num_classes: K.
        box_loss_weight: factor of the GIoU loss.
        score_threshold: minimum score of a detection.
        nms_threshold: IoU above which the lower-scoring one of two boxes of a class is dropped.
        max_detections: maximum number of detections per image.
        **kwargs: arguments of ``MetaArchitecture``: ``pixel_mean``, ``pixel_std``, ``input_format``.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        num_classes: int,
        box_loss_weight: float = 2.0,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, **kwargs)
        shape = backbone.output_shape()[in_features[0]]
        if shape.channels is None or shape.stride is None:
            raise ValueError(
                f"CenterDetector: the backbone must state channels and stride of {in_features[0]}"
            )
        self.in_features = list(in_features)
        self.stride = shape.stride
        self.num_classes = num_classes
        self.box_loss_weight = box_loss_weight
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        prediction = nn.Conv2d(shape.channels, num_classes + 4, 1)
        nn.init.zeros_(prediction.bias)
        nn.init.constant_(
            prediction.bias[:num_classes], -4.6
        )  # scores start at 0.01, as most cells have no object
        self.head = nn.Sequential(
            nn.Conv2d(shape.channels, shape.channels, 3, padding=1), nn.ReLU(), prediction
        )

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute ``loss_cls`` and ``loss_box``."""
        _, logits, boxes = self._predict(batched_inputs)
        return self._losses(batched_inputs, logits, boxes)

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one ``{"instances": Instances}`` per image."""
        return self._results(batched_inputs, *self._predict(batched_inputs))

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one forward pass."""
        sizes, logits, boxes = self._predict(batched_inputs)
        losses = self._losses(batched_inputs, logits, boxes)
        return losses, self._results(batched_inputs, sizes, logits, boxes)

    def _predict(self, batched_inputs: Sequence[ModelInput]) -> tuple[ImageSizes, Tensor, Tensor]:
        """Return sizes of the images, ``(B, H, W, K)`` class logits and ``(B, H, W, 4)`` boxes in input pixels."""
        images = self.preprocess_image(batched_inputs)
        maps = self.backbone(images.tensor)
        finest, *coarser = (maps[name] for name in self.in_features)
        merged = finest
        for level in coarser:
            merged = merged + F.interpolate(level, size=finest.shape[2:], mode="bilinear")
        logits, distances = self.head(merged).permute(0, 2, 3, 1).split([self.num_classes, 4], dim=3)
        height, width = logits.shape[1:3]
        y = (torch.arange(height, device=logits.device) + 0.5) * self.stride
        x = (torch.arange(width, device=logits.device) + 0.5) * self.stride
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)  # (H, W, 2)
        # Distances to the sides are exponentials, hence positive. The clamp keeps them finite.
        left_top, right_bottom = (distances.clamp(max=5).exp() * self.stride).split(2, dim=3)
        return images.image_sizes, logits, torch.cat([centers - left_top, centers + right_bottom], dim=3)

    def _losses(self, batched_inputs: Sequence[ModelInput], logits: Tensor, boxes: Tensor) -> Losses:
        targets = torch.zeros_like(logits)
        matched_boxes, matched_gt = [boxes.new_zeros(0, 4)], [boxes.new_zeros(0, 4)]
        for i, entry in enumerate(batched_inputs):
            ground_truth = entry["instances"].to(self.device)
            x, y = (ground_truth.gt_boxes.get_centers() / self.stride).long().unbind(1)
            x, y = x.clamp(0, logits.shape[2] - 1), y.clamp(0, logits.shape[1] - 1)
            targets[i, y, x, ground_truth.gt_classes] = 1
            matched_boxes.append(boxes[i, y, x])
            matched_gt.append(ground_truth.gt_boxes.tensor)
        pred_boxes, gt_boxes = torch.cat(matched_boxes), torch.cat(matched_gt)
        num_objects = max(gt_boxes.shape[0], 1)
        class_loss = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="sum")
        # Without objects the loss is still connected to the boxes: other processes wait for their gradient.
        box_loss = giou_loss(pred_boxes, gt_boxes, reduction="sum") + 0 * boxes.sum()
        return {
            "loss_cls": class_loss / num_objects,
            "loss_box": self.box_loss_weight * box_loss / num_objects,
        }

    @torch.no_grad()
    def _results(
        self, batched_inputs: Sequence[ModelInput], sizes: ImageSizes, logits: Tensor, boxes: Tensor
    ) -> list[ModelOutput]:
        results: list[ModelOutput] = []
        for entry, size, scores, boxes_i in zip(batched_inputs, sizes, logits.sigmoid(), boxes, strict=True):
            y, x, classes = (scores > self.score_threshold).nonzero(as_tuple=True)
            candidates = Boxes(boxes_i[y, x])
            candidates.clip(size)
            scores = scores[y, x, classes]
            index = batched_nms(candidates.tensor, scores, classes, self.nms_threshold)[: self.max_detections]
            detections = Instances(
                size, pred_boxes=candidates[index], scores=scores[index], pred_classes=classes[index]
            )
            height, width = entry.get("height", size[0]), entry.get("width", size[1])
            results.append({"instances": detector_postprocess(detections, height, width)})
        return results
