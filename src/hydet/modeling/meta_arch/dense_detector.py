"""Detectors that predict at every position of their feature maps, without a second stage.

N images, A anchors per cell, R_i = H_i * W_i * A anchors on level i, R over all levels, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, overload

import torch
from torch import Tensor, nn

from hydet.distributed import sum_tensor_over_processes, world_size
from hydet.modeling.anchors import DefaultAnchorGenerator
from hydet.modeling.box_regression import BoxTransform
from hydet.modeling.joining import build_dense_head
from hydet.modeling.padded import PaddedResults, results_to_instances, to_detections
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.protocols import BackboneProtocol
from hydet.modeling.selection.dense import gather_anchors, top_anchors, top_pairs
from hydet.modeling.selection.detections import select_labeled_boxes, to_instances
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes, clip_to_images
from hydet.structures import Boxes, ImageList, Instances, Losses, ModelInput, ModelOutput

from .dense_heads import check_head, get_level_shapes
from .meta_architecture import MetaArchitecture
from .model_inputs import get_gt_instances, output_size
from .step_count import StepCount, next_normalizer
from .training_image import draw_boxes

__all__ = ["DenseDetector"]

# Outputs of a dense head: per kind of prediction, one (N, C, H_i, W_i) tensor per level.
Predictions = Sequence[Sequence[Tensor]]


class DenseDetector(MetaArchitecture):
    """Base class of one-stage detectors: a backbone, and a head on some of its feature maps.

    Subclasses such as ``RetinaNet`` and ``FCOS`` define ``forward_training`` and ``select``, which take the outputs of
    the head. A subclass without ``select`` overrides ``forward_inference``; it has no tensor core.

    Args:
        backbone: computes feature maps from images.
        head: maps a list of feature maps to a tuple of lists, each with one tensor per level; or a partial of a head,
            which is called with ``input_shape``.
        head_in_features: names of the feature maps; by default all, from the smallest stride to the largest.
        anchor_generator: makes the anchors of each level.
        box2box_transform: encodes boxes as deltas and decodes them.
        num_classes: K, number of foreground classes.
        test_score_thresh: only higher scores become detections.
        test_topk_candidates: number of pairs of anchor and class per level that enter the suppression.
        test_nms_thresh: IoU above which the lower-scoring one of two detections of a class is dropped.
        max_detections_per_image: number of detections with the highest scores; negative for all.
        test_clip_boxes: clip boxes to the image before the suppression, as torchvision and mmdet do. Post-processing
            clips them in any case.
        test_drop_empty_boxes: drop boxes without area before the suppression, as mmdet does. Post-processing drops them
            in any case, but there they count for ``max_detections_per_image``.
        initial_loss_normalizer: first value of ``loss_normalizer``. It should be about the number of positive anchors
            in a batch: a running mean that started near 0 would make the losses of the first steps explode.
        pixel_mean: mean per channel; see ``MetaArchitecture``.
        pixel_std: standard deviation per channel; see ``MetaArchitecture``.
        input_format: channel order that the weights expect.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.

    Attributes:
        loss_normalizer: running mean of the number of positive anchors per optimizer step over all processes, which
            divides the losses. Each step in training mode updates it before it uses it; in evaluation mode it stays.
            It is a buffer outside the state dict: ``training_state`` returns it.

    Note:
        With several processes in training mode, all of them must call the model, which adds up their positive anchors.
        The mean over processes, of losses and of gradients in ``DistributedDataParallel``, is that of one process with
        all the images. A loop that accumulates gradients calls ``start_step`` and ``finish_step``, as
        ``hydet.engine.Trainer`` does; without them, each forward pass is a step.

    Raises:
        ValueError: if a feature map is missing, or the head does not fit ``num_classes`` or ``anchor_generator``.
    """

    head: nn.Module
    loss_normalizer: Tensor

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        head: nn.Module | partial[nn.Module],
        head_in_features: Sequence[str] | None = None,
        anchor_generator: DefaultAnchorGenerator,
        box2box_transform: BoxTransform,
        num_classes: int,
        test_score_thresh: float,
        test_topk_candidates: int,
        test_nms_thresh: float,
        max_detections_per_image: int,
        test_clip_boxes: bool = False,
        test_drop_empty_boxes: bool = False,
        initial_loss_normalizer: float,
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
        shapes = get_level_shapes(backbone, head_in_features)
        self.head = build_dense_head(head, list(shapes.values()))
        self.head_in_features = list(shapes)
        check_head(self.head, num_classes, anchor_generator)
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.num_classes = num_classes
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.test_clip_boxes = test_clip_boxes
        self.test_drop_empty_boxes = test_drop_empty_boxes
        self.initial_loss_normalizer = initial_loss_normalizer
        self.register_buffer("loss_normalizer", torch.tensor(initial_loss_normalizer), persistent=False)
        self._step_count: StepCount | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        self.loss_normalizer = self.loss_normalizer.float()  # half precision is too coarse for a running mean
        return self

    def reset_computed_buffers(self, device: torch.device | None = None) -> None:
        """Compute the buffers outside the state dict again; ``loss_normalizer`` gets its first value."""
        super().reset_computed_buffers(device)
        self.loss_normalizer = torch.tensor(self.initial_loss_normalizer, device=self.device)

    def training_state(self) -> dict[str, float]:
        """Return the values that an exact resume needs besides the state dict; see ``load_training_state``."""
        return {"loss_normalizer": float(self.loss_normalizer)}

    def load_training_state(self, state: Mapping[str, float]) -> None:
        """Restore the values that ``training_state`` returned."""
        self.loss_normalizer.fill_(float(state["loss_normalizer"]))

    def start_step(self, num_batches: int) -> None:
        """Start an optimizer step whose losses are averaged over ``num_batches`` forward passes in training mode.

        Raises:
            ValueError: if ``num_batches`` is below 1.
        """
        self._step_count = StepCount(num_batches)

    def finish_step(self) -> Tensor | None:
        """End the step, after its last backward pass, and update ``loss_normalizer``.

        Returns:
            The factor by which the caller multiplies all gradients and losses of the step, because the losses of its
            first batches used an estimate of ``loss_normalizer``; None if the step had a single batch.
        """
        if self._step_count is None:
            return None
        factor = self._step_count.finish(self.loss_normalizer)
        self._step_count = None
        return factor

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute losses against ``instances`` with ``gt_boxes`` and ``gt_classes``, in any mode.

        Args:
            batched_inputs: see ``forward``.

        Returns:
            Scalar losses by name.

        Raises:
            ValueError: if an input has no ``instances``, or its ground truth or image cannot be used.
        """
        images, features, predictions = self._predict(batched_inputs)
        return self._compute_losses(batched_inputs, images, features, predictions)

    @overload
    def inference(
        self, batched_inputs: Sequence[ModelInput], do_postprocess: Literal[True] = True
    ) -> list[ModelOutput]: ...

    @overload
    def inference(
        self, batched_inputs: Sequence[ModelInput], do_postprocess: bool
    ) -> list[ModelOutput] | list[Instances]: ...

    def inference(
        self, batched_inputs: Sequence[ModelInput], do_postprocess: bool = True
    ) -> list[ModelOutput] | list[Instances]:
        """Detect objects, in any mode.

        Args:
            batched_inputs: see ``forward``; ``height`` and ``width`` are the output resolution, by default that of the
                input.
            do_postprocess: scale the results to the output resolution and clip them to it.

        Returns:
            One ``{"instances": Instances}`` per image, with ``pred_boxes``, ``scores`` and ``pred_classes``; without
            post-processing, one ``Instances`` per image in the frame of the input, not clipped without
            ``test_clip_boxes``.
        """
        if self.is_compiled:
            images = self.preprocess_image(batched_inputs)
            results = results_to_instances(self.run_core(images), images.image_sizes)
        else:
            results = self.forward_inference(*self._predict(batched_inputs))
        return self._postprocess(results, batched_inputs) if do_postprocess else results

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one pass through the backbone and the head, in any mode."""
        images, features, predictions = self._predict(batched_inputs)
        losses = self._compute_losses(batched_inputs, images, features, predictions)
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
    ) -> Losses:
        """Compute losses from the outputs of the head.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: outputs of the head.
            gt_instances: per image, with ``gt_boxes`` and ``gt_classes``.
        """

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Detect objects as padded tensors; see ``MetaArchitecture.inference_padded``."""
        features = self.backbone(images)
        levels = [features[name] for name in self.head_in_features]
        detections = to_detections(self.select(levels, self.head(levels), image_sizes))
        return PaddedResults(*detections)

    def forward_inference(
        self, images: ImageList, features: Sequence[Tensor], predictions: Predictions
    ) -> list[Instances]:
        """Select detections from the outputs of the head, in the frame of the input.

        Args:
            images: the batch.
            features: per level, ``(N, C, H, W)``.
            predictions: outputs of the head.
        """
        return to_instances(self.select(features, predictions, images.image_sizes), images.image_sizes)

    def select(
        self, features: Sequence[Tensor], predictions: Predictions, image_sizes: ImageSizes
    ) -> SelectedBoxes:
        """Select the detections of all images from the outputs of the head, without waiting for the device.

        Args:
            features: per level, ``(N, C, H, W)``.
            predictions: outputs of the head.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them; used with ``test_clip_boxes``.

        Raises:
            TypeError: if this class defines only ``forward_inference``.
        """
        raise TypeError(f"{type(self).__name__} has no tensor core: it does not define select")

    def inference_single_image(
        self,
        anchors: Sequence[Boxes],
        box_cls: Sequence[Tensor],
        box_delta: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Select the detections of one image from its scores.

        Args:
            anchors: per level, R_i boxes.
            box_cls: per level, ``(R_i, K)`` scores in [0, 1].
            box_delta: per level, ``(R_i, 4)``.
            image_size: (height, width).

        Returns:
            ``pred_boxes`` (not clipped without ``test_clip_boxes``), ``scores`` and ``pred_classes``, by descending score.
        """
        scores = [x[None] for x in box_cls]
        rows = [top_anchors(x.amax(dim=-1), self.test_topk_candidates) for x in scores]
        top_scores = [gather_anchors(x, row).float() for x, row in zip(scores, rows, strict=True)]
        selected = self._select(anchors, rows, top_scores, [x[None] for x in box_delta], [image_size])
        return to_instances(selected, [image_size])[0]

    def visualize_training(
        self, batched_inputs: Sequence[ModelInput], results: Sequence[Instances]
    ) -> Tensor:
        """Draw the first image with its ground truth, and beside it with its best detections.

        Args:
            batched_inputs: the batch, with ``instances``.
            results: detections per image, as ``forward_inference`` returns them.

        Returns:
            ``(3, H, 2 * W)`` uint8 RGB image.
        """
        return draw_boxes(batched_inputs[0], results[0].pred_boxes.tensor, input_format=self.input_format)

    def _predict(self, batched_inputs: Sequence[ModelInput]) -> tuple[ImageList, list[Tensor], Predictions]:
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        levels = [features[name] for name in self.head_in_features]
        return images, levels, self.head(levels)

    def _compute_losses(
        self,
        batched_inputs: Sequence[ModelInput],
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Predictions,
    ) -> Losses:
        targets = get_gt_instances(batched_inputs, self.device, num_classes=self.num_classes)
        return self.forward_training(images, features, predictions, targets)

    @torch.no_grad()
    def _update_normalizer(self, num_positives: Tensor) -> Tensor:
        """Return the divisor of the losses; training mode counts the positives of this process's batch first."""
        if not self.training:
            return self.loss_normalizer.clone()
        total = sum_tensor_over_processes(num_positives)
        if self._step_count is None:
            self.loss_normalizer.copy_(next_normalizer(self.loss_normalizer, total))
            return self.loss_normalizer / world_size()
        normalizer = self._step_count.add(total, self.loss_normalizer)
        return normalizer / (world_size() * self._step_count.num_batches)

    def _postprocess(
        self, results: Sequence[Instances], batched_inputs: Sequence[ModelInput]
    ) -> list[ModelOutput]:
        return [
            {"instances": detector_postprocess(detections, *output_size(entry, detections.image_size))}
            for detections, entry in zip(results, batched_inputs, strict=True)
        ]

    def _select(
        self,
        anchors: Sequence[Boxes],
        rows: Sequence[Tensor],
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: ImageSizes,
        *,
        factors: Sequence[Tensor] | None = None,
    ) -> SelectedBoxes:
        """Select detections from the scores at the best anchors of each level.

        Args:
            anchors: per level, R_i boxes.
            rows: per level, ``(N, k)`` indices of its best anchors.
            scores: per level, ``(N, k, K)`` at these anchors.
            deltas: per level, at all anchors: ``(N, H, W, A, 4)`` or ``(N, R_i, 4)``.
            image_sizes: see ``select``.
            factors: per level, ``(N, k, 1)`` at these anchors. They multiply the scores that exceed the threshold.
        """
        top_scores, sources, top_deltas, classes, top_factors = [], [], [], [], []
        for i, (anchor, row, score, delta) in enumerate(zip(anchors, rows, scores, deltas, strict=True)):
            level_scores, index, level_classes = top_pairs(score, self.test_topk_candidates)
            if factors is not None:
                top_factors.append(factors[i].squeeze(2).gather(1, index))
            row = row.gather(1, index)
            top_scores.append(level_scores)
            classes.append(level_classes)
            sources.append(anchor.tensor[row])  # (N, k, 4)
            top_deltas.append(gather_anchors(delta, row))
        boxes = self.box2box_transform.apply_deltas(torch.cat(top_deltas, dim=1), torch.cat(sources, dim=1))
        if self.test_clip_boxes:
            boxes = clip_to_images(boxes, image_sizes)
        all_scores = torch.cat(top_scores, dim=1)
        if self.test_drop_empty_boxes:
            is_filled = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
            all_scores = torch.where(is_filled, all_scores, -torch.inf)
        return select_labeled_boxes(
            boxes,
            all_scores,
            torch.cat(classes, dim=1),
            score_threshold=self.test_score_thresh,
            nms_threshold=self.test_nms_thresh,
            max_detections=self.max_detections_per_image,
            factors=torch.cat(top_factors, dim=1) if top_factors else None,
        )
