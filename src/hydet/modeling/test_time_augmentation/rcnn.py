"""Test-time augmentation of two-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hydet.modeling.meta_arch import GeneralizedRCNN
from hydet.modeling.postprocessing import detector_postprocess
from hydet.modeling.protocols import Task
from hydet.structures import Boxes, ImageList, Instances, ModelInput, ModelOutput

from .dataset_mapper import AugmentedInput, default_mapper
from .with_tta import DetectorWithTTA, TTAMapper, chunks, output_frame

__all__ = ["GeneralizedRCNNWithTTA"]


class GeneralizedRCNNWithTTA(DetectorWithTTA):
    """``GeneralizedRCNN`` with test-time augmentation.

    Boxes of all augmented images are mapped back to the output frame and suppressed together. Masks are then
    predicted for the remaining boxes in every augmented image and averaged. Keypoints are not predicted.

    Args:
        model: a ``GeneralizedRCNN`` for upright boxes.
        tta_mapper: makes the augmented inputs; ``default_mapper()`` by default.
        batch_size: number of augmented images per forward pass.
        **kwargs: thresholds; see ``DetectorWithTTA``.

    Raises:
        ValueError: if ``model`` is not a ``GeneralizedRCNN``, or predicts rotated boxes.

    Source: He et al. 2017 (arXiv:1703.06870), appendix B.
    """

    model: GeneralizedRCNN

    def __init__(
        self,
        *,
        model: GeneralizedRCNN,
        tta_mapper: TTAMapper | None = None,
        batch_size: int = 3,
        **kwargs: Any,
    ) -> None:
        if not isinstance(model, GeneralizedRCNN):
            raise ValueError(f"{type(self).__name__} needs a GeneralizedRCNN, got {type(model).__name__}")
        if "rotated" in model.tasks:
            raise ValueError(
                f"{type(self).__name__} merges upright boxes, but the model predicts rotated boxes"
            )
        super().__init__(
            model=model, tta_mapper=tta_mapper or default_mapper(), batch_size=batch_size, **kwargs
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, without keypoints."""
        return tuple(task for task in self.model.tasks if task != "keypoints")

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        augmented = self.tta_mapper(entry)
        detections: list[Instances] = []
        for chunk in chunks(augmented, self.batch_size):
            images, features = self._features(chunk)
            proposals = self.model.get_proposals(chunk, images, features)
            detections += self.model.roi_heads.detect_boxes(images, features, proposals)
        return {"instances": self._merge_with_masks(detections, augmented, entry)}

    def _features(self, chunk: Sequence[AugmentedInput]) -> tuple[ImageList, dict[str, Tensor]]:
        images = self.model.preprocess_image(chunk)
        return images, self.model.backbone(images.tensor)

    def _merge_with_masks(
        self, detections: Sequence[Instances], augmented: Sequence[AugmentedInput], entry: ModelInput
    ) -> Instances:
        """Merge the boxes of all augmented images, then predict masks for the merged boxes."""
        frame = output_frame(entry)
        merged = self._merge(detections, augmented, frame)
        if "mask" in self.model.tasks:
            merged.pred_masks = self._average_masks(augmented, merged)
            merged = detector_postprocess(merged, *frame)
        return merged

    def _average_masks(self, augmented: Sequence[AugmentedInput], merged: Instances) -> Tensor:
        """Return ``(N, 1, M, M)`` mask probabilities of the merged boxes, averaged over the augmented images."""
        total: Tensor | None = None
        for chunk in chunks(augmented, self.batch_size):
            known_boxes = [
                Instances(
                    item["transforms"].target,
                    pred_boxes=Boxes(item["transforms"].apply_boxes(merged.pred_boxes.tensor)),
                    pred_classes=merged.pred_classes,
                    scores=merged.scores,
                )
                for item in chunk
            ]
            _, features = self._features(chunk)
            outputs = self.model.roi_heads.forward_with_given_boxes(features, known_boxes)
            for item, output in zip(chunk, outputs, strict=True):
                masks = output.pred_masks.flip(3) if item["transforms"].flip else output.pred_masks
                total = masks if total is None else total + masks
        assert total is not None  # the mapper returns at least one image
        return total / len(augmented)
