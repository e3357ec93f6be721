"""Test-time augmentation of dense detectors, and of detectors that are not hydet's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from hydet.modeling.meta_arch.dense_detector import DenseDetector
from hydet.modeling.selection.pooled import select_pooled
from hydet.structures import Instances, ModelInput, ModelOutput, ROIMasks

from .dataset_mapper import AugmentedInput, flip_boxes
from .with_tta import DetectorWithTTA, chunks, output_frame

__all__ = ["DenseDetectorWithTTA"]

MERGED_FIELDS = ("pred_boxes", "scores", "pred_classes", "pred_masks", "pred_keypoints")


class DenseDetectorWithTTA(DetectorWithTTA):
    """A detector without region heads, such as RetinaNet or FCOS, with test-time augmentation.

    Boxes of all augmented images are mapped back to the output frame and suppressed together. A detector that also
    predicts masks or keypoints cannot predict them for merged boxes, as an R-CNN does; each detection then keeps those
    of the augmented image that it comes from. Without ``keypoint_flip_indices``, flipped images are left out if there
    are keypoints.

    ``model`` predicts ``instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``, and optionally ``pred_masks``
    and ``pred_keypoints``; other fields are dropped.
    """

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        augmented, frame = self.tta_mapper(entry), output_frame(entry)
        if isinstance(self.model, DenseDetector):
            detections: list[Instances] = []
            for chunk in chunks(augmented, self.batch_size):
                # Not post-processed: in the frame of the augmented image and not clipped, as the model suppresses boxes.
                detections += cast("list[Instances]", self.model.inference(chunk, do_postprocess=False))
            merged = self._merge(detections, augmented, frame)
            return {"instances": merged[merged.pred_boxes.nonempty()]}
        return {"instances": self._merge_with_fields(augmented, frame)}

    def _merge_with_fields(self, augmented: Sequence[AugmentedInput], frame: tuple[int, int]) -> Instances:
        """Merge detections together with their masks and keypoints."""
        if "keypoints" in self.model.tasks and self.keypoint_flip_indices is None:
            augmented = [item for item in augmented if not item["transforms"].flip]
            if not augmented:
                raise ValueError(
                    f"{type(self).__name__}: keypoints of flipped images need keypoint_flip_indices, and tta_mapper "
                    "makes flipped images only"
                )
        detections: list[Instances] = []
        for chunk in chunks(augmented, self.batch_size):
            # Inputs have the height and width of the output frame, so results only remain to be flipped.
            for item, output in zip(chunk, self.model.inference(chunk), strict=True):
                detections.append(self._in_frame(output["instances"], frame, flip=item["transforms"].flip))
        pooled = Instances.cat(detections)
        selected = select_pooled(
            pooled.pred_boxes.tensor,
            pooled.scores,
            pooled.pred_classes,
            score_thresh=self.test_score_thresh,
            nms_thresh=self.test_nms_thresh,
            topk=self.test_topk_per_image,
        )
        return pooled[selected]

    def _in_frame(self, detections: Instances, frame: tuple[int, int], *, flip: bool) -> Instances:
        """Return the boxes, masks and keypoints of one augmented image, flipped back if it is flipped."""
        fields = {name: value for name, value in detections.get_fields().items() if name in MERGED_FIELDS}
        if flip:
            boxes = detections.pred_boxes
            fields["pred_boxes"] = type(boxes)(flip_boxes(boxes.tensor, frame[1]))
            if detections.has("pred_masks"):
                fields["pred_masks"] = _flip_masks(detections.pred_masks)
            if detections.has("pred_keypoints"):
                x, y, score = detections.pred_keypoints[:, self.keypoint_flip_indices].unbind(2)
                fields["pred_keypoints"] = torch.stack([frame[1] - x, y, score], dim=2)
        return Instances(frame, **fields)


def _flip_masks(masks: Tensor | ROIMasks) -> Tensor | ROIMasks:
    return ROIMasks(masks.tensor.flip(2)) if isinstance(masks, ROIMasks) else masks.flip(2)
