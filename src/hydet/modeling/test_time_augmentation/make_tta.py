"""Choice of the test-time augmentation wrapper for a model."""

from __future__ import annotations

from hydet.modeling.meta_arch import GeneralizedRCNN, PanopticFPN
from hydet.modeling.protocols import Detector

from .dense import DenseDetectorWithTTA
from .panoptic import PanopticFPNWithTTA
from .rcnn import GeneralizedRCNNWithTTA
from .semantic import SemanticSegmentorWithTTA
from .with_tta import TTAMapper, WithTTA

__all__ = ["make_tta"]


def make_tta(*, model: Detector, tta_mapper: TTAMapper, batch_size: int = 3) -> WithTTA:
    """Wrap a model in test-time augmentation.

    Merged boxes are suppressed with the NMS threshold of the model and limited to its number of detections per image.

    Args:
        model: a meta-architecture of hydet, or another detector that predicts upright boxes.
        tta_mapper: makes the augmented inputs.
        batch_size: number of augmented images per forward pass.

    Returns:
        The wrapper for the tasks of ``model``.

    Raises:
        ValueError: if ``model`` predicts rotated boxes or proposals, whose results cannot be merged, or is a panoptic
            model other than ``PanopticFPN``.
    """
    tasks = model.tasks
    if "panoptic" in tasks and not isinstance(model, PanopticFPN):
        raise ValueError(
            f"test-time augmentation of panoptic models needs a PanopticFPN, got {type(model).__name__}"
        )
    if "semantic" in tasks and "panoptic" not in tasks:
        return SemanticSegmentorWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
    if "box" not in tasks:
        raise ValueError(
            f"test-time augmentation merges upright boxes and semantic labels, but the model predicts {tasks[0]}"
        )
    if isinstance(model, PanopticFPN):
        return PanopticFPNWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
    if isinstance(model, GeneralizedRCNN):
        return GeneralizedRCNNWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
    return DenseDetectorWithTTA(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
