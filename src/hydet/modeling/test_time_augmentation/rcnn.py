"""Test-time augmentation of two-stage detectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hydet.modeling.postprocessing import detector_postprocess
from hydet.structures import Boxes, Instances

from .dataset_mapper import DatasetMapperTTA, default_mapper
from .with_tta import DetectorWithTTA, chunks

__all__ = ["GeneralizedRCNNWithTTA", "boxes_only"]


class GeneralizedRCNNWithTTA(DetectorWithTTA):
    """A box or mask R-CNN with test-time augmentation.

    Boxes found in every augmented picture are mapped back, pooled and suppressed together; masks are then predicted
    for the survivors in every picture and averaged. Keypoints are not predicted.

    Args:
        model: a ``GeneralizedRCNN`` with ``StandardROIHeads`` or a subclass, for upright boxes.
        tta_mapper: makes the augmented inputs; by default ``default_mapper()``.
        batch_size: augmented pictures at a time.
        **kwargs: thresholds; see ``DetectorWithTTA``.

    Raises:
        ValueError: if the model has no ``roi_heads``, or they predict rotated boxes.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tta_mapper: DatasetMapperTTA | None = None,
        batch_size: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            model=model, tta_mapper=tta_mapper or default_mapper(), batch_size=batch_size, **kwargs
        )
        if not hasattr(model, "roi_heads"):
            raise ValueError(f"GeneralizedRCNNWithTTA needs a GeneralizedRCNN, got {type(model).__name__}")
        if "rotated" in self.model.tasks:
            raise ValueError(
                "GeneralizedRCNNWithTTA merges upright boxes, but the model predicts rotated ones"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for task in self.model.tasks if task != "keypoints")

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        augmented = self.tta_mapper(entry)
        return {"instances": self._merged_instances(self._detect(augmented), augmented, entry)}

    def _merged_instances(
        self, found: Sequence[Instances], augmented: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]
    ) -> Instances:
        frame = (int(entry["height"]), int(entry["width"]))
        merged = self._merge(found, augmented, frame, self.model.roi_heads.num_classes)
        if getattr(self.model.roi_heads, "mask_on", False):
            merged.pred_masks = self._average_masks(augmented, merged)
            merged = detector_postprocess(merged, *frame)
        return merged

    def _detect(self, augmented: Sequence[Mapping[str, Any]]) -> list[Instances]:
        """Raw boxes of every augmented picture, without masks and keypoints."""
        with boxes_only(self.model.roi_heads):
            return [
                found
                for chunk in chunks(augmented, self.batch_size)
                for found in self.model.inference(chunk, do_postprocess=False)
            ]

    def _average_masks(self, augmented: Sequence[Mapping[str, Any]], merged: Instances) -> Tensor:
        total: Tensor | None = None
        for chunk in chunks(augmented, self.batch_size):
            known = [
                Instances(
                    tuple(a["image"].shape[1:]),
                    pred_boxes=Boxes(a["transforms"].apply_boxes(merged.pred_boxes.tensor)),
                    pred_classes=merged.pred_classes,
                    scores=merged.scores,
                )
                for a in chunk
            ]
            outputs = self._with_given_boxes(chunk, known)
            for a, output in zip(chunk, outputs, strict=True):
                masks = output.pred_masks.flip(3) if a["transforms"].flip else output.pred_masks
                total = masks if total is None else total + masks
        assert total is not None  # the mapper gives at least one picture
        return total / len(augmented)

    def _with_given_boxes(
        self, chunk: Sequence[Mapping[str, Any]], known: Sequence[Instances]
    ) -> list[Instances]:
        return self.model.inference(chunk, known, do_postprocess=False)


@contextlib.contextmanager
def boxes_only(heads: Any) -> Iterator[None]:
    """Masks and keypoints of boxes that the merging drops would be computed for nothing."""
    switches = {n: getattr(heads, n) for n in ("mask_on", "keypoint_on") if hasattr(heads, n)}
    for name in switches:
        setattr(heads, name, False)
    try:
        yield
    finally:
        for name, value in switches.items():
            setattr(heads, name, value)
