"""Choice of the test-time augmentation wrapper for a model."""

from __future__ import annotations

from collections.abc import Sequence

from hydet.modeling.meta_arch import GeneralizedRCNN, PanopticFPN
from hydet.modeling.protocols import Detector

from .dense import DenseDetectorWithTTA
from .panoptic import PanopticFPNWithTTA
from .proposals import ProposalNetworkWithTTA
from .rcnn import GeneralizedRCNNWithTTA
from .semantic import SemanticSegmentorWithTTA
from .with_tta import TTAMapper, WithTTA

__all__ = ["make_tta"]


def make_tta(
    *,
    model: Detector,
    tta_mapper: TTAMapper,
    batch_size: int = 3,
    keypoint_flip_indices: Sequence[int] | None = None,
) -> WithTTA:
    """Wrap a model in test-time augmentation.

    Merged boxes are suppressed with the NMS threshold of the model and limited to its number of detections per image.

    Args:
        model: a meta-architecture of hydet, or another detector of any task but panoptic segmentation.
        tta_mapper: makes the augmented inputs.
        batch_size: number of augmented images per forward pass.
        keypoint_flip_indices: for each keypoint of a flipped object, the index of the keypoint before flipping, as
            ``hydet.data.Metadata.keypoint_flip_indices``. None leaves the keypoints of flipped images out.

    Returns:
        The wrapper for the tasks of ``model``.

    Raises:
        ValueError: if ``model`` is a panoptic model other than ``PanopticFPN``: segments of several maps have no common
            scores by which to merge them, and only ``PanopticFPN`` states how its parts are combined.
    """
    tasks = model.tasks
    if "panoptic" in tasks and not isinstance(model, PanopticFPN):
        raise ValueError(
            "test-time augmentation of panoptic models needs a PanopticFPN, whose parts are merged before they are "
            f"combined, got {type(model).__name__}"
        )
    if "semantic" in tasks and "panoptic" not in tasks:
        return SemanticSegmentorWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
    if {"proposals", "rotated_proposals"} & set(tasks):
        return ProposalNetworkWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
    if isinstance(model, PanopticFPN):
        return PanopticFPNWithTTA(
            model=model,
            tta_mapper=tta_mapper,
            batch_size=batch_size,
            keypoint_flip_indices=keypoint_flip_indices,
        )
    if isinstance(model, GeneralizedRCNN):
        return GeneralizedRCNNWithTTA(
            model=model,
            tta_mapper=tta_mapper,
            batch_size=batch_size,
            keypoint_flip_indices=keypoint_flip_indices,
        )
    return DenseDetectorWithTTA(
        model=model,
        tta_mapper=tta_mapper,
        batch_size=batch_size,
        keypoint_flip_indices=keypoint_flip_indices,
    )
