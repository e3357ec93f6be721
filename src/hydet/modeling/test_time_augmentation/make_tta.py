"""The wrapper that fits a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from .dataset_mapper import DatasetMapperTTA
from .dense import DenseDetectorWithTTA
from .panoptic import PanopticFPNWithTTA
from .rcnn import GeneralizedRCNNWithTTA
from .semantic import SemanticSegmentorWithTTA
from .with_tta import WithTTA

__all__ = ["make_tta"]


def make_tta(*, model: nn.Module, tta_mapper: DatasetMapperTTA, batch_size: int = 3) -> WithTTA:
    """A model with test-time augmentation that keeps the model's own limits where boxes are merged.

    Args:
        model: one of hydet's meta-architectures, or one that predicts the same.
        tta_mapper: makes the augmented inputs.
        batch_size: augmented pictures at a time.

    Raises:
        ValueError: for models of rotated boxes and of proposals, whose results cannot be merged.
    """
    common: dict[str, Any] = {"model": model, "tta_mapper": tta_mapper, "batch_size": batch_size}
    tasks: tuple[str, ...] = getattr(model, "tasks", ("box",))
    if "panoptic" in tasks:
        return PanopticFPNWithTTA(**common, **_limits_of_regions(model))
    if "semantic" in tasks:
        return SemanticSegmentorWithTTA(**common)
    if "box" not in tasks:
        raise ValueError(f"test-time augmentation merges upright boxes and semantic labels, not {tasks[0]}")
    if hasattr(model, "roi_heads"):
        return GeneralizedRCNNWithTTA(**common, **_limits_of_regions(model))
    return DenseDetectorWithTTA(
        **common,
        **_present(
            test_nms_thresh=getattr(model, "test_nms_thresh", None),
            test_topk_per_image=getattr(model, "max_detections_per_image", None),
        ),
    )


def _limits_of_regions(model: Any) -> dict[str, Any]:
    predictor = getattr(model.roi_heads, "box_predictor", None)
    last = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
    names = ("test_nms_thresh", "test_topk_per_image")
    return _present(**{name: getattr(last, name, None) for name in names})


def _present(**limits: Any) -> dict[str, Any]:
    return {name: value for name, value in limits.items() if value is not None}
