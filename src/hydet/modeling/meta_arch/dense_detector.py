"""Detectors that predict at every place of their feature maps, without a second stage.

N images, A anchors a cell, R_i = H_i * W_i * A anchors on level i, R over all levels, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.backbones import Backbone
from hydet.modeling.box_regression import BoxTransform
from hydet.modeling.joining import build_dense_head
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.selection.dense import gather_anchors, top_pairs
from hydet.modeling.selection.detections import select_labeled_boxes, to_instances
from hydet.structures import Boxes, ImageList, Instances

from .generalized_rcnn import output_size
from .meta_architecture import MetaArchitecture, ModelInput

__all__ = ["DenseDetector"]

SHOWN_DETECTIONS = 20
Predictions = Sequence[Sequence[Tensor]]


class DenseDetector(MetaArchitecture):
    """Base of RetinaNet and FCOS: a backbone, and a head on some of its feature maps.

    A subclass gives ``forward_training`` and ``forward_inference``, which take what the head returned, and sets the
    attributes annotated below that its inference uses.

    Args:
        backbone: images to feature maps.
        head: feature maps to a tuple of lists, one tensor a level in each.
        head_in_features: names of the feature maps; by default all, from the smallest stride to the largest.
        pixel_mean: one number a channel; see ``MetaArchitecture``.
        pixel_std: one number a channel.
        input_format: channel order that the weights expect.
        vis_period: draw ground truth and detections every so many training steps; 0 never.

    Attributes:
        loss_normalizer: running mean of the number of positive anchors, which losses are divided by. Steps in
            training mode update it before they use it; in evaluation mode it is used as it is. It is a buffer outside
            of the state dict: ``training_state`` saves it.
    """

    initial_loss_normalizer: float = 100.0
    loss_normalizer: Tensor
    num_classes: int
    box2box_transform: BoxTransform
    test_score_thresh: float
    test_topk_candidates: int
    test_nms_thresh: float
    max_detections_per_image: int

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__(
            backbone=backbone,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        shapes = backbone.output_shape()
        if head_in_features is None:
            head_in_features = sorted(shapes, key=lambda name: shapes[name].stride or 0)
        missing = [name for name in head_in_features if name not in shapes]
        if missing:
            raise ValueError(f"head_in_features has {missing}; the backbone produces {list(shapes)}")
        self.head = build_dense_head(head, [shapes[name] for name in head_in_features])
        self.head_in_features = list(head_in_features)
        self.register_buffer("loss_normalizer", torch.tensor(self.initial_loss_normalizer), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        was_meta = self.loss_normalizer.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.loss_normalizer.is_meta:
            self.loss_normalizer.fill_(self.initial_loss_normalizer)
        self.loss_normalizer = self.loss_normalizer.float()  # a running mean of counts needs the precision
        return self

    def training_state(self) -> dict[str, float]:
        """What an exact resume needs beside the state dict; see ``load_training_state``."""
        return {"loss_normalizer": float(self.loss_normalizer)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``training_state`` returned."""
        self.loss_normalizer.fill_(float(state["loss_normalizer"]))

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Losses against ``instances`` with ``gt_boxes`` and ``gt_classes``, in any mode.

        Args:
            batched_inputs: see ``forward``.

        Returns:
            Scalars by name.

        Raises:
            ValueError: if an input has no ``instances``, or they or its image are not what they should be.
        """
        images, features, predictions = self._predict(batched_inputs)
        return self._losses(batched_inputs, images, features, predictions)

    def inference(
        self, batched_inputs: Sequence[ModelInput], do_postprocess: bool = True
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detect, in any mode.

        Args:
            batched_inputs: see ``forward``; ``height`` and ``width`` name the output resolution, by default that of
                the input.
            do_postprocess: rescale to the output resolution and clip to it.

        Returns:
            One ``{"instances": Instances}`` an image, with ``pred_boxes``, ``scores`` and ``pred_classes``; or,
            without post-processing, one raw ``Instances``.
        """
        images, features, predictions = self._predict(batched_inputs)
        results = self.forward_inference(images, features, predictions)
        return self._postprocess(results, batched_inputs) if do_postprocess else results

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[dict[str, Instances]]]:
        """Losses and results from one pass through backbone and head, in any mode."""
        images, features, predictions = self._predict(batched_inputs)
        losses = self._losses(batched_inputs, images, features, predictions)
        with torch.no_grad():
            results = self.forward_inference(images, features, predictions)
        return losses, self._postprocess(results, batched_inputs)

    @abstractmethod
    def forward_training(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
        gt_instances: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """Losses, from what the head returned.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's output.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.
        """
        raise NotImplementedError

    @abstractmethod
    def forward_inference(
        self, images: ImageList, features: Sequence[Tensor], predictions: Predictions
    ) -> list[Instances]:
        """Detections in the frame of the input, not clipped, from what the head returned.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: the head's output.
        """
        raise NotImplementedError

    def visualize_training(self, batched_inputs: Sequence[ModelInput], results: Sequence[Instances]) -> None:
        """Hand ``on_picture`` the first image with its ground truth, and with its best detections beside.

        Args:
            batched_inputs: the batch.
            results: as many, as ``forward_inference`` returns them.
        """
        boxes = results[0].pred_boxes.tensor[:SHOWN_DETECTIONS]
        self._show_boxes(batched_inputs[0], boxes, "Left: ground truth. Right: detections")

    def _predict(self, batched_inputs: Sequence[ModelInput]) -> tuple[ImageList, list[Tensor], Predictions]:
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        levels = [features[name] for name in self.head_in_features]
        return images, levels, self.head(levels)

    def _losses(
        self,
        batched_inputs: Sequence[ModelInput],
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
    ) -> dict[str, Tensor]:
        targets = self._ground_truth(batched_inputs, num_classes=self.num_classes)
        losses = self.forward_training(images, features, predictions, targets)
        if self._picture_is_due():
            with torch.no_grad():
                results = self.forward_inference(images, features, predictions)
            self.visualize_training(batched_inputs, results)
        return losses

    @torch.no_grad()
    def _updated_normalizer(self, num_positives: Tensor) -> Tensor:
        """The normaliser for this step: a running mean with momentum 0.9 in training mode, else as it is."""
        if self.training:
            self.loss_normalizer.mul_(0.9).add_(num_positives.clamp(min=1).float(), alpha=0.1)
        return self.loss_normalizer.clone()

    def _postprocess(
        self, results: Sequence[Instances], batched_inputs: Sequence[ModelInput]
    ) -> list[dict[str, Instances]]:
        return [
            {"instances": detector_postprocess(found, *output_size(entry, found.image_size))}
            for found, entry in zip(results, batched_inputs, strict=True)
        ]

    def _detect(
        self,
        anchors: Sequence[Boxes],
        rows: Sequence[Tensor],
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections from the scores at the best anchors of each level.

        Args:
            anchors: per level, R_i boxes.
            rows: per level, ``(N, k)`` indices of its best anchors.
            scores: per level, ``(N, k, K)`` at these anchors.
            deltas: per level, all of them: ``(N, H, W, A, 4)`` or ``(N, R_i, 4)``.
            image_sizes: N pairs (height, width).
        """
        top_scores, sources, top_deltas, classes = [], [], [], []
        for anchor, row, score, delta in zip(anchors, rows, scores, deltas, strict=True):
            level_scores, index, level_classes = top_pairs(score, self.test_topk_candidates)
            row = row.gather(1, index)
            top_scores.append(level_scores)
            classes.append(level_classes)
            sources.append(anchor.tensor[row])  # (N, k, 4)
            top_deltas.append(gather_anchors(delta, row))
        boxes = self.box2box_transform.apply_deltas(torch.cat(top_deltas, dim=1), torch.cat(sources, dim=1))
        selected = select_labeled_boxes(
            boxes,
            torch.cat(top_scores, dim=1),
            torch.cat(classes, dim=1),
            score_threshold=self.test_score_thresh,
            nms_threshold=self.test_nms_thresh,
            max_detections=self.max_detections_per_image,
        )
        return to_instances(selected, image_sizes)
