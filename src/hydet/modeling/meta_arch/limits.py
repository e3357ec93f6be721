"""Limits that a model applies to its detections, and that also hold for detections merged from several of its results."""

from __future__ import annotations

from typing import Protocol

from hydet.modeling.proposal_generators import RPN
from hydet.modeling.protocols import DetectionLimits, Task

from .dense_detector import DenseDetector
from .generalized_rcnn import GeneralizedRCNN
from .proposal_network import ProposalNetwork

__all__: list[str] = []


class HasTasks(Protocol):
    """A model that declares its tasks."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, most important first."""
        ...


def detection_limits(model: HasTasks) -> DetectionLimits:
    """Return the NMS threshold and the number of results per image of a model, or the default ones if it declares none.

    Those of a proposal network are the limits of its proposals in evaluation.
    """
    if isinstance(model, GeneralizedRCNN):
        return model.roi_heads.detection_limits
    if isinstance(model, DenseDetector):
        return DetectionLimits(model.test_nms_thresh, model.max_detections_per_image)
    if isinstance(model, ProposalNetwork) and isinstance(model.proposal_generator, RPN):
        generator = model.proposal_generator
        return DetectionLimits(generator.nms_thresh, generator.post_nms_topk[False])
    if {"proposals", "rotated_proposals"} & set(model.tasks):
        return DetectionLimits(nms_thresh=0.7, topk_per_image=1000)
    return DetectionLimits()
