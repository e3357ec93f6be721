"""Test-time augmentation: the same picture at several sizes and mirrored, results merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from hydet.structures import Boxes, Instances

from .postprocessing import detector_postprocess
from .roi_heads import fast_rcnn_inference

__all__ = [
    "DatasetMapperTTA",
    "DenseDetectorWithTTA",
    "GeneralizedRCNNWithTTA",
    "ResizeAndFlip",
    "SemanticSegmentorWithTTA",
]


@dataclass(frozen=True)
class ResizeAndFlip:
    """How one augmented picture came from the frame that results are reported in.

    Args:
        source: (height, width) of the output frame.
        target: (height, width) of the augmented picture.
        flip: mirrored left to right after resizing.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    flip: bool

    def apply_boxes(self, boxes: Tensor) -> Tensor:
        """``(N, 4)`` boxes of the output frame, in the frame of the augmented picture."""
        scaled = boxes * self._scale(boxes)
        return _mirrored(scaled, self.target[1]) if self.flip else scaled

    def invert_boxes(self, boxes: Tensor) -> Tensor:
        """``(N, 4)`` boxes found in the augmented picture, in the output frame."""
        unflipped = _mirrored(boxes, self.target[1]) if self.flip else boxes
        return unflipped / self._scale(boxes)

    def _scale(self, like: Tensor) -> Tensor:
        y, x = (t / s for s, t in zip(self.source, self.target, strict=True))
        return like.new_tensor([x, y, x, y])


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


class DatasetMapperTTA:
    """Makes the augmented inputs of one input.

    Args:
        min_sizes: lengths of the shorter side to resize to, in pixels.
        max_size: bound of the longer side.
        flip: after each resized picture also give it mirrored.
    """

    def __init__(self, *, min_sizes: Sequence[int], max_size: int, flip: bool) -> None:
        if not min_sizes:
            raise ValueError("DatasetMapperTTA needs at least one size in min_sizes")
        self.min_sizes = tuple(min_sizes)
        self.max_size = max_size
        self.flip = flip

    def __call__(self, dataset_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Augment.

        Args:
            dataset_dict: a model input; ``image`` is ``(C, H, W)``, uint8 or float; ``height`` and ``width`` name
                the output frame (by default that of the image).

        Returns:
            Copies of it with another ``image`` and with ``transforms``, a ``ResizeAndFlip``: for each size the
            resized picture (bilinear, antialiased as PIL does on 8-bit pictures), then the mirrored one.
        """
        image = dataset_dict["image"]
        size = (int(image.shape[1]), int(image.shape[2]))
        output = (int(dataset_dict.get("height", size[0])), int(dataset_dict.get("width", size[1])))
        found = []
        for min_size in self.min_sizes:
            target = shortest_edge_size(size, min_size, self.max_size)
            resized = _resize(image, target)
            for flip in (False, True) if self.flip else (False,):
                found.append(
                    {
                        **dataset_dict,
                        "image": resized.flip(2) if flip else resized,
                        "transforms": ResizeAndFlip(output, target, flip),
                    }
                )
        return found


def default_mapper() -> DatasetMapperTTA:
    """The sizes that published results with test-time augmentation used: 400 to 1200 in steps of 100, mirrored too."""
    return DatasetMapperTTA(min_sizes=range(400, 1201, 100), max_size=4000, flip=True)


def shortest_edge_size(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shorter side ``shortest``, less if the longer one would exceed ``longest``."""
    scale = shortest / min(size)
    height, width = (shortest, scale * size[1]) if size[0] < size[1] else (scale * size[0], shortest)
    if max(height, width) > longest:
        scale = longest / max(height, width)
        height, width = height * scale, width * scale
    return int(height + 0.5), int(width + 0.5)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.dtype == torch.uint8:
        # Pillow itself: torchvision's 8-bit kernel rounds a few pixels in a thousand the other way.
        planes = [
            Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR)
            for plane in image.cpu().numpy()
        ]
        return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).to(image.device)
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def _with_output_size(entry: Mapping[str, Any]) -> dict[str, Any]:
    height, width = (int(s) for s in entry["image"].shape[1:])
    return {"height": height, "width": width, **entry}


def _chunks(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


class _WithTTA(nn.Module):
    def __init__(self, *, model: nn.Module, tta_mapper: DatasetMapperTTA, batch_size: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model: Any = model
        self.tta_mapper = tta_mapper
        self.batch_size = batch_size

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One result an image, as the model itself would give it at the output resolution."""
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Merged results, one an image."""
        return [self._inference_one_image(_with_output_size(entry)) for entry in batched_inputs]

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class GeneralizedRCNNWithTTA(_WithTTA):
    """A box or mask R-CNN with test-time augmentation.

    Boxes found in every augmented picture are mapped back, pooled and suppressed together; masks are then predicted
    for the survivors in every picture and averaged. Keypoints are not predicted.

    Args:
        model: a ``GeneralizedRCNN`` with ``StandardROIHeads`` or a subclass.
        tta_mapper: makes the augmented inputs; by default ``default_mapper()``.
        batch_size: augmented pictures at a time.
        test_score_thresh: pooled boxes need more than this score; the model's own threshold came first.
        test_nms_thresh: IoU above which the pooled boxes suppress one another.
        test_topk_per_image: boxes to keep.

    Raises:
        ValueError: if the model has no ``roi_heads``.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tta_mapper: DatasetMapperTTA | None = None,
        batch_size: int = 3,
        test_score_thresh: float = 1e-8,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
    ) -> None:
        super().__init__(model=model, tta_mapper=tta_mapper or default_mapper(), batch_size=batch_size)
        if not hasattr(model, "roi_heads"):
            raise ValueError(f"GeneralizedRCNNWithTTA needs a GeneralizedRCNN, got {type(model).__name__}")
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        frame = (int(entry["height"]), int(entry["width"]))
        augmented = self.tta_mapper(entry)
        merged = self._merge(self._detect(augmented), augmented, frame)
        if getattr(self.model.roi_heads, "mask_on", False):
            merged.pred_masks = self._average_masks(augmented, merged)
            merged = detector_postprocess(merged, *frame)
        return {"instances": merged}

    def _detect(self, augmented: Sequence[Mapping[str, Any]]) -> list[Instances]:
        """Raw boxes of every augmented picture, without masks and keypoints."""
        heads = self.model.roi_heads
        switches = {n: getattr(heads, n) for n in ("mask_on", "keypoint_on") if hasattr(heads, n)}
        for name in switches:
            setattr(heads, name, False)
        try:
            return [
                found
                for chunk in _chunks(augmented, self.batch_size)
                for found in self.model.inference(chunk, do_postprocess=False)
            ]
        finally:
            for name, value in switches.items():
                setattr(heads, name, value)

    def _merge(
        self, found: Sequence[Instances], augmented: Sequence[Mapping[str, Any]], frame: tuple[int, int]
    ) -> Instances:
        pairs = list(zip(found, augmented, strict=True))
        boxes = torch.cat([a["transforms"].invert_boxes(f.pred_boxes.tensor) for f, a in pairs])
        return merge_detections(
            boxes,
            torch.cat([f.scores for f, _ in pairs]),
            torch.cat([f.pred_classes for f, _ in pairs]),
            frame,
            self.model.roi_heads.num_classes,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def _average_masks(self, augmented: Sequence[Mapping[str, Any]], merged: Instances) -> Tensor:
        total: Tensor | None = None
        for chunk in _chunks(augmented, self.batch_size):
            known = [
                Instances(
                    tuple(a["image"].shape[1:]),
                    pred_boxes=Boxes(a["transforms"].apply_boxes(merged.pred_boxes.tensor)),
                    pred_classes=merged.pred_classes,
                    scores=merged.scores,
                )
                for a in chunk
            ]
            outputs = self.model.inference(chunk, known, do_postprocess=False)
            for a, output in zip(chunk, outputs, strict=True):
                masks = output.pred_masks.flip(3) if a["transforms"].flip else output.pred_masks
                total = masks if total is None else total + masks
        assert total is not None  # the mapper gives at least one picture
        return total / len(augmented)


class DenseDetectorWithTTA(_WithTTA):
    """RetinaNet, FCOS or any detector whose results have ``pred_boxes``, with test-time augmentation.

    Args:
        model: gives ``{"instances": Instances}`` for each input.
        tta_mapper: makes the augmented inputs.
        batch_size: augmented pictures at a time.
        test_score_thresh: pooled boxes need more than this score.
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

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        augmented = self.tta_mapper(entry)
        boxes, scores, classes = [], [], []
        for chunk in _chunks(augmented, self.batch_size):
            own_frame = [
                {**a, "height": int(a["image"].shape[1]), "width": int(a["image"].shape[2])} for a in chunk
            ]
            for a, output in zip(chunk, self.model.inference(own_frame), strict=True):
                found = output["instances"]
                boxes.append(a["transforms"].invert_boxes(found.pred_boxes.tensor))
                scores.append(found.scores)
                classes.append(found.pred_classes)
        merged = merge_detections(
            torch.cat(boxes),
            torch.cat(scores),
            torch.cat(classes),
            (int(entry["height"]), int(entry["width"])),
            self.model.num_classes,
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )
        return {"instances": merged}


class SemanticSegmentorWithTTA(_WithTTA):
    """A semantic model whose class probabilities are averaged over the augmented pictures.

    Args:
        model: gives ``{"sem_seg": (K, H, W) logits}`` for each input.
        tta_mapper: makes the augmented inputs.
        batch_size: augmented pictures at a time.

    The ``sem_seg`` it returns are logarithms of the averaged probabilities.
    """

    def __init__(self, *, model: nn.Module, tta_mapper: DatasetMapperTTA, batch_size: int = 3) -> None:
        super().__init__(model=model, tta_mapper=tta_mapper, batch_size=batch_size)

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        augmented = self.tta_mapper(entry)
        total: Tensor | None = None
        for chunk in _chunks(augmented, self.batch_size):
            for a, output in zip(chunk, self.model.inference(chunk), strict=True):
                scores = output["sem_seg"].flip(2) if a["transforms"].flip else output["sem_seg"]
                probabilities = scores.softmax(dim=0)
                total = probabilities if total is None else total + probabilities
        assert total is not None  # the mapper gives at least one picture
        return {"sem_seg": (total / len(augmented)).clamp(min=1e-12).log()}


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
