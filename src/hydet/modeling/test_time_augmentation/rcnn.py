"""Test-time augmentation of two-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from hydet.modeling.meta_arch import GeneralizedRCNN
from hydet.modeling.postprocessing import detector_postprocess
from hydet.structures import (
    Boxes,
    ImageList,
    Instances,
    ModelInput,
    ModelOutput,
    heatmaps_to_keypoints,
)

from .dataset_mapper import AugmentedInput, ResizeAndFlip, default_mapper
from .with_tta import DetectorWithTTA, TTAMapper, chunks, output_frame

__all__ = ["GeneralizedRCNNWithTTA"]


class RegionAverage(NamedTuple):
    """Predictions for N merged boxes, averaged over the augmented images.

    Attributes:
        masks: ``(N, 1, M, M)`` probabilities; None if the model predicts no masks.
        heatmaps: ``(N, K, S, S)`` logits of the heatmaps of K keypoints; None if the model predicts no keypoints.
    """

    masks: Tensor | None
    heatmaps: Tensor | None


class GeneralizedRCNNWithTTA(DetectorWithTTA):
    """``GeneralizedRCNN`` with test-time augmentation.

    Boxes of all augmented images, upright or rotated, are mapped back to the output frame and suppressed together. Masks
    and keypoints are then predicted for the remaining boxes in every augmented image; mask probabilities and the logits
    of keypoint heatmaps are averaged.

    Args:
        model: a ``GeneralizedRCNN``.
        tta_mapper: makes the augmented inputs; ``default_mapper()`` by default.
        batch_size: number of augmented images per forward pass.
        **kwargs: thresholds and ``keypoint_flip_indices``; see ``DetectorWithTTA``.

    Raises:
        ValueError: if ``model`` is not a ``GeneralizedRCNN``.

    Source: He et al. 2017 (arXiv:1703.06870), appendix B, for boxes and masks; Newell et al. 2016 (arXiv:1603.06937),
    section 4.1, for heatmaps averaged with those of the flipped image.
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
        super().__init__(
            model=model, tta_mapper=tta_mapper or default_mapper(), batch_size=batch_size, **kwargs
        )

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        augmented = self.tta_mapper(entry)
        detections: list[Instances] = []
        for chunk in chunks(augmented, self.batch_size):
            images, features = self._features(chunk)
            proposals = self.model.get_proposals(chunk, images, features)
            detections += self.model.roi_heads.detect_boxes(images, features, proposals)
        return {"instances": self._merge_with_regions(detections, augmented, entry)}

    def _features(self, chunk: Sequence[AugmentedInput]) -> tuple[ImageList, dict[str, Tensor]]:
        images = self.model.preprocess_image(chunk)
        return images, self.model.backbone(images.tensor)

    def _merge_with_regions(
        self, detections: Sequence[Instances], augmented: Sequence[AugmentedInput], entry: ModelInput
    ) -> Instances:
        """Merge the boxes of all augmented images, then predict masks and keypoints for the merged boxes."""
        frame = output_frame(entry)
        merged = self._merge(detections, augmented, frame)
        average = self._average_regions(augmented, merged)
        if average.heatmaps is not None:
            merged.pred_keypoints = _decode_heatmaps(average.heatmaps, augmented, merged)
            merged.pred_keypoint_heatmaps = average.heatmaps
        if average.masks is not None:
            merged.pred_masks = average.masks
        return detector_postprocess(merged, *frame)

    def _average_regions(self, augmented: Sequence[AugmentedInput], merged: Instances) -> RegionAverage:
        """Predict masks and keypoints of the merged boxes in every augmented image, and average them."""
        masks, heatmaps = _Mean(), _Mean()
        if not {"mask", "keypoints"} & set(self.model.tasks):
            return RegionAverage(None, None)
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
                flip = item["transforms"].flip
                if "mask" in self.model.tasks:
                    masks.add(output.pred_masks.flip(3) if flip else output.pred_masks)
                if "keypoints" in self.model.tasks:
                    self._add_heatmaps(heatmaps, output.pred_keypoint_heatmaps, flip=flip)
        if "keypoints" in self.model.tasks and heatmaps.count == 0:
            raise ValueError(
                f"{type(self).__name__}: keypoints of flipped images need keypoint_flip_indices, and tta_mapper makes "
                "flipped images only"
            )
        return RegionAverage(masks.value(), heatmaps.value())

    def _add_heatmaps(self, mean: _Mean, heatmaps: Tensor, *, flip: bool) -> None:
        """Add the heatmaps of one augmented image; left and right keypoints of a flipped image change places."""
        if not flip:
            mean.add(heatmaps)
        elif self.keypoint_flip_indices is not None:
            mean.add(heatmaps.flip(3)[:, self.keypoint_flip_indices])


class _Mean:
    """Running mean of tensors of one shape."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, value: Tensor) -> None:
        """Add a tensor."""
        self.total = value if self.total is None else self.total + value
        self.count += 1

    def value(self) -> Tensor | None:
        """Return the mean, or None if no tensor was added."""
        return None if self.total is None else self.total / self.count


def _decode_heatmaps(heatmaps: Tensor, augmented: Sequence[AugmentedInput], merged: Instances) -> Tensor:
    """Return ``(N, K, 3)`` keypoints as (x, y, score) in the frame of ``merged``.

    Decoding resizes each heatmap to its box in pixels. It takes place in the frame of the largest augmented image, for
    the pixels of the output frame may be much smaller than those that the model sees.
    """
    transforms = (item["transforms"] for item in augmented)
    target = max((transform.target for transform in transforms), key=lambda size: size[0] * size[1])
    transform = ResizeAndFlip(merged.image_size, target, flip=False)
    decoded = heatmaps_to_keypoints(heatmaps, transform.apply_boxes(merged.pred_boxes.tensor))
    scale_y, scale_x = (old / new for old, new in zip(merged.image_size, target, strict=True))
    # (x, y, logit, score) -> (x, y, score)
    return decoded[:, :, [0, 1, 3]] * decoded.new_tensor([scale_x, scale_y, 1.0])
