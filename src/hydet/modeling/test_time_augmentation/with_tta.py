"""Base classes of models with test-time augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from hydet.modeling.meta_arch.limits import detection_limits
from hydet.modeling.meta_arch.model_inputs import output_size
from hydet.modeling.protocols import Detector, Task
from hydet.modeling.selection.pooled import select_pooled
from hydet.structures import Boxes, Instances, ModelInput, ModelOutput, RotatedBoxes

from .dataset_mapper import AugmentedInput

__all__ = ["DetectorWithTTA", "TTAMapper", "WithTTA", "chunks", "merge_detections", "output_frame"]

T = TypeVar("T")


class TTAMapper(Protocol):
    """Makes augmented copies of a model input, such as ``DatasetMapperTTA``."""

    def __call__(self, dataset_dict: ModelInput, /) -> list[AugmentedInput]:
        """Return at least one augmented copy of ``dataset_dict``."""
        ...


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield slices of ``items`` of length ``size``; the last one may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def output_frame(entry: ModelInput) -> tuple[int, int]:
    """Return (height, width) of the results: those of the input, or the size of its image."""
    image = entry["image"]
    return output_size(entry, (int(image.shape[1]), int(image.shape[2])))


class WithTTA(nn.Module, ABC):
    """Base class of wrappers that run a model on augmented copies of each image and merge the results.

    Args:
        model: a detector in evaluation mode.
        tta_mapper: makes the augmented inputs.
        batch_size: number of augmented images per forward pass.

    Raises:
        ValueError: if ``batch_size`` is not positive.
    """

    model: Detector

    def __init__(self, *, model: Detector, tta_mapper: TTAMapper, batch_size: int = 3) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model
        self.tta_mapper = tta_mapper
        self.batch_size = batch_size

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model; see ``hydet.modeling.protocols.Detector``."""
        return self.model.tasks

    def __call__(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one merged result per image."""
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Return one merged result per image, in the output frame, with the keys of the model's own results."""
        results = []
        for entry in batched_inputs:
            height, width = output_frame(entry)
            results.append(
                self._inference_one_image(cast(ModelInput, {**entry, "height": height, "width": width}))
            )
        return results

    @abstractmethod
    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        """Return the merged result of an input that carries ``height`` and ``width``."""


class DetectorWithTTA(WithTTA):
    """Base class for detectors: pools the boxes of all augmented images and suppresses them together.

    Args:
        model: a detector of upright or rotated boxes in evaluation mode.
        tta_mapper: makes the augmented inputs.
        batch_size: number of augmented images per forward pass.
        test_score_thresh: strict lower bound of the score of a pooled box. Nearly 0, since the model has already
            applied its own threshold.
        test_nms_thresh: IoU above which pooled boxes of the same class suppress each other; by default the threshold
            of the model.
        test_topk_per_image: maximum number of boxes per image, negative for all; by default the number of the model.
        keypoint_flip_indices: for each keypoint of a flipped object, the index of the keypoint before flipping, as
            ``hydet.data.Metadata.keypoint_flip_indices``. None leaves the keypoints of flipped images out.
    """

    def __init__(
        self,
        *,
        model: Detector,
        tta_mapper: TTAMapper,
        batch_size: int = 3,
        test_score_thresh: float = 1e-8,
        test_nms_thresh: float | None = None,
        test_topk_per_image: int | None = None,
        keypoint_flip_indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
        limits = detection_limits(model)
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = limits.nms_thresh if test_nms_thresh is None else test_nms_thresh
        self.test_topk_per_image = (
            limits.topk_per_image if test_topk_per_image is None else test_topk_per_image
        )
        self.keypoint_flip_indices = None if keypoint_flip_indices is None else list(keypoint_flip_indices)

    def _merge(
        self, detections: Sequence[Instances], augmented: Sequence[AugmentedInput], frame: tuple[int, int]
    ) -> Instances:
        """Merge the detections of all augmented images into one ``Instances`` in ``frame``."""
        boxes = [
            item["transforms"].invert_boxes(instances.pred_boxes.tensor)
            for instances, item in zip(detections, augmented, strict=True)
        ]
        return merge_detections(
            torch.cat(boxes),
            torch.cat([instances.scores for instances in detections]),
            torch.cat([instances.pred_classes for instances in detections]),
            frame,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


def merge_detections(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    frame: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """Suppress pooled detections of one image within each class.

    Args:
        boxes: ``(N, 4)``, or ``(N, 5)`` rotated boxes, in ``frame``, not clipped.
        scores: ``(N,)``.
        classes: ``(N,)`` int64.
        frame: (height, width) in pixels; boxes are clipped to it.
        score_thresh: strict lower bound of the scores.
        nms_thresh: IoU above which the box with the lower score is dropped.
        topk: maximum number of detections; negative for all.

    Returns:
        ``pred_boxes``, ``scores`` and ``pred_classes`` in order of descending score.
    """
    boxes = boxes.float()
    selected = select_pooled(
        boxes, scores, classes, score_thresh=score_thresh, nms_thresh=nms_thresh, topk=topk
    )
    # Boxes are clipped after the suppression, as dense detectors do. Those of an R-CNN are inside the image already.
    container = (Boxes if boxes.shape[1] == 4 else RotatedBoxes)(boxes[selected])
    container.clip(frame)
    return Instances(
        frame, pred_boxes=container, scores=scores[selected].to(boxes), pred_classes=classes[selected]
    )
