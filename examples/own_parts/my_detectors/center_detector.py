"""A whole detector on hydet's base class, which normalises, pads and batches the images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.layers import batched_nms, giou_loss, sigmoid_focal_loss
from hydet.modeling import Backbone, MetaArchitecture, detector_postprocess
from hydet.structures import Boxes, Instances


class CenterDetector(MetaArchitecture):
    """One prediction a cell of a feature map; the cell that holds an object's centre answers for it.

    The idea, much simplified, of Zhou et al. 2019 (arXiv:1904.07850).

    Args:
        backbone: images to feature maps.
        in_features: maps of equally many channels, the finest first; the others are enlarged to it and added.
        num_classes: K.
        box_loss_weight: of the GIoU loss beside the focal loss.
        score_threshold: least score of a result.
        nms_threshold: overlap above which the weaker of two boxes of a class goes.
        max_detections: most results of an image.
        **kwargs: those of ``MetaArchitecture``: ``pixel_mean``, ``pixel_std``, ``input_format``.
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
        self.in_features = list(in_features)
        self.stride = shape.stride
        self.num_classes = num_classes
        self.box_loss_weight = box_loss_weight
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.head = nn.Sequential(
            nn.Conv2d(shape.channels, shape.channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(shape.channels, num_classes + 4, 1),
        )
        nn.init.constant_(self.head[-1].bias, 0.0)
        nn.init.constant_(self.head[-1].bias[:num_classes], -4.6)  # scores of about 0.01 at first

    def compute_losses(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return self._losses(batched_inputs, *self._predict(batched_inputs)[1:])

    def inference(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        return self._results(batched_inputs, *self._predict(batched_inputs))

    def losses_and_inference(
        self, batched_inputs: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Tensor], list[dict[str, Instances]]]:
        sizes, logits, boxes = self._predict(batched_inputs)
        return self._losses(batched_inputs, logits, boxes), self._results(
            batched_inputs, sizes, logits, boxes
        )

    def _predict(self, batched_inputs: Sequence[Mapping[str, Any]]) -> tuple[list, Tensor, Tensor]:
        """Sizes of the images, ``(N, H, W, K)`` class logits and ``(N, H, W, 4)`` boxes in input pixels."""
        images = self.preprocess_image(batched_inputs)
        maps = self.backbone(images.tensor)
        finest, *others = (maps[name] for name in self.in_features)
        merged = finest + sum(F.interpolate(m, size=finest.shape[2:], mode="bilinear") for m in others)
        found = self.head(merged).permute(0, 2, 3, 1)
        logits, sides = found.split([self.num_classes, 4], dim=3)
        height, width = found.shape[1:3]
        y = (torch.arange(height, device=found.device) + 0.5) * self.stride
        x = (torch.arange(width, device=found.device) + 0.5) * self.stride
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)  # (H, W, 2)
        left_top, right_bottom = (sides.clamp(max=5).exp() * self.stride).split(2, dim=3)
        return images.image_sizes, logits, torch.cat([centers - left_top, centers + right_bottom], dim=3)

    def _losses(
        self, batched_inputs: Sequence[Mapping[str, Any]], logits: Tensor, boxes: Tensor
    ) -> dict[str, Tensor]:
        targets = torch.zeros_like(logits)
        predicted, wanted = [boxes.new_zeros(0, 4)], [boxes.new_zeros(0, 4)]
        for i, entry in enumerate(batched_inputs):
            truth = entry["instances"].to(self.device)
            x, y = (truth.gt_boxes.get_centers() / self.stride).long().unbind(1)
            x, y = x.clamp(0, logits.shape[2] - 1), y.clamp(0, logits.shape[1] - 1)
            targets[i, y, x, truth.gt_classes] = 1
            predicted.append(boxes[i, y, x])
            wanted.append(truth.gt_boxes.tensor)
        found, truth = torch.cat(predicted), torch.cat(wanted)
        count = max(truth.shape[0], 1)
        return {
            "loss_cls": sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="sum") / count,
            # Nothing to find still leaves a connected zero: several processes must not wait for its gradient.
            "loss_box": self.box_loss_weight * giou_loss(found, truth, reduction="sum") / count
            + 0 * boxes.sum(),
        }

    @torch.no_grad()
    def _results(
        self, batched_inputs: Sequence[Mapping[str, Any]], sizes: list, logits: Tensor, boxes: Tensor
    ) -> list[dict[str, Instances]]:
        results = []
        for entry, size, scores, places in zip(batched_inputs, sizes, logits.sigmoid(), boxes, strict=True):
            y, x, classes = (scores > self.score_threshold).nonzero(as_tuple=True)
            chosen = Boxes(places[y, x])
            chosen.clip(size)
            scores = scores[y, x, classes]
            kept = batched_nms(chosen.tensor, scores, classes, self.nms_threshold)[: self.max_detections]
            found = Instances(size, pred_boxes=chosen[kept], scores=scores[kept], pred_classes=classes[kept])
            height, width = entry.get("height", size[0]), entry.get("width", size[1])
            results.append({"instances": detector_postprocess(found, height, width)})
        return results
