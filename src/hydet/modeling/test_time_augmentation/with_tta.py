"""What every model with test-time augmentation shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.roi_heads import fast_rcnn_inference
from hydet.structures import Instances

from .dataset_mapper import DatasetMapperTTA

__all__ = ["DetectorWithTTA", "WithTTA", "chunks", "merge_detections"]


def _with_output_size(entry: Mapping[str, Any]) -> dict[str, Any]:
    height, width = (int(s) for s in entry["image"].shape[1:])
    return {"height": height, "width": width, **entry}


def chunks(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Parts of ``entries``, each of ``size`` but for the last."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


class WithTTA(nn.Module):
    """A model that sees each picture several times.

    Args:
        model: in evaluation mode.
        tta_mapper: makes the augmented inputs.
        batch_size: augmented pictures at a time.
    """

    def __init__(self, *, model: nn.Module, tta_mapper: DatasetMapperTTA, batch_size: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model: Any = model
        self.tta_mapper = tta_mapper
        self.batch_size = batch_size

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is predicted; see ``MetaArchitecture.tasks``."""
        return self.model.tasks

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One result an image, as the model itself would give it at the output resolution."""
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Merged results, one an image."""
        return [self._inference_one_image(_with_output_size(entry)) for entry in batched_inputs]

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class DetectorWithTTA(WithTTA):
    """Pools the boxes found in all augmented pictures, and suppresses them together.

    Args:
        model: see ``WithTTA``.
        tta_mapper: likewise.
        batch_size: likewise.
        test_score_thresh: pooled boxes need more than this score; the model's own threshold came first.
        test_nms_thresh: IoU above which pooled boxes of a class suppress one another.
        test_topk_per_image: boxes to keep.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tta_mapper: DatasetMapperTTA,
        batch_size: int = 3,
        test_score_thresh: float = 1e-8,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
    ) -> None:
        super().__init__(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image

    def _merge(
        self,
        found: Sequence[Instances],
        augmented: Sequence[Mapping[str, Any]],
        frame: tuple[int, int],
        num_classes: int,
    ) -> Instances:
        """One ``Instances`` in ``frame`` from those of the augmented pictures."""
        pairs = list(zip(found, augmented, strict=True))
        return merge_detections(
            torch.cat([a["transforms"].invert_boxes(f.pred_boxes.tensor) for f, a in pairs]),
            torch.cat([f.scores for f, _ in pairs]),
            torch.cat([f.pred_classes for f, _ in pairs]),
            frame,
            num_classes,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


def merge_detections(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    frame: tuple[int, int],
    num_classes: int,
    score_thresh: float,
    nms_thresh: float,
    topk: int,
) -> Instances:
    """Suppress pooled detections within each class, in one frame.

    Args:
        boxes: ``(N, 4)`` in ``frame``; clipped to it.
        scores: ``(N,)``.
        classes: ``(N,)``.
        frame: (height, width).
        num_classes: classes there are.
        score_thresh: strict lower bound.
        nms_thresh: IoU above which the lower score goes.
        topk: detections to keep.
    """
    by_class = boxes.new_zeros(boxes.shape[0], num_classes + 1)
    by_class[torch.arange(boxes.shape[0], device=boxes.device), classes] = scores.to(boxes.dtype)
    merged, _ = fast_rcnn_inference([boxes], [by_class], [frame], score_thresh, nms_thresh, topk)
    return merged[0]
