"""Interfaces between the parts of a model, and between a model and the code that trains or runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from hydet.layers import ShapeSpec
from hydet.modeling.padded import PaddedDetections, PaddedRegions, RegionLogits
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import Boxes, ImageList, Instances, Losses, ModelInput, ModelOutput

__all__ = [
    "AnchorGenerator",
    "BackboneProtocol",
    "DetectionLimits",
    "Detector",
    "ProposalGenerator",
    "RegionHeads",
    "SemanticHead",
    "Task",
]

Task = Literal[
    "box",
    "mask",
    "keypoints",
    "rotated",
    "semantic",
    "panoptic",
    "proposals",
    "rotated_proposals",
]


class BackboneProtocol(Protocol):
    """Computes feature maps from images (``ResNet``, ``FPN``)."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 accepts any size."""
        ...

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Arguments for ``ImageList.from_tensors``: ``size_divisibility`` and ``square_size``."""
        ...

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature map."""
        ...

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Compute ``(B, C_l, H_l, W_l)`` feature maps by name from ``(B, C, H, W)`` normalized images."""
        ...


class AnchorGenerator(Protocol):
    """Makes anchors for feature maps (``DefaultAnchorGenerator``, ``RotatedAnchorGenerator``)."""

    @property
    def box_dim(self) -> int:
        """Numbers per anchor: 4 for upright boxes, 5 for rotated boxes."""
        ...

    @property
    def num_anchors(self) -> list[int]:
        """Number of anchors per cell, by level."""
        ...

    def __call__(self, features: Sequence[Tensor]) -> Sequence[Boxes]:
        """Return the anchors of each level, ordered by row, column and anchor of the cell."""
        ...


class ProposalGenerator(Protocol):
    """Proposes class-agnostic regions from feature maps (``RPN``, ``RRPN``)."""

    @property
    def box_dim(self) -> int:
        """Numbers per box: 4 for upright boxes, 5 for rotated boxes."""
        ...

    def __call__(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Return one ``Instances`` of proposals per image, and losses if ``gt_instances`` are given."""
        ...


class DetectionLimits(NamedTuple):
    """Limits on the detections of one image, applied again where several sets of detections are merged.

    Attributes:
        nms_thresh: IoU above which the lower-scoring one of two boxes of a class is dropped.
        topk_per_image: maximum number of detections; negative for all.
    """

    nms_thresh: float = 0.5
    topk_per_image: int = 100


class RegionHeads(Protocol):
    """Predicts classes, boxes, masks and keypoints of regions (``ROIHeads``)."""

    num_classes: int

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the heads, most important first."""
        ...

    @property
    def detection_limits(self) -> DetectionLimits:
        """Limits that ``__call__`` applies to its detections."""
        ...

    def __call__(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: Sequence[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Return sampled proposals and losses if ``targets`` are given, else detections and no losses."""
        ...

    def detect_padded(
        self, features: Mapping[str, Tensor], regions: PaddedRegions, image_sizes: ImageSizes
    ) -> PaddedDetections:
        """Detect boxes in a padded batch, without waiting for the device."""
        ...

    def predict_padded(self, features: Mapping[str, Tensor], detections: PaddedDetections) -> RegionLogits:
        """Predict masks and keypoints of the detections of a padded batch."""
        ...

    def detect_boxes(
        self, images: ImageList, features: Mapping[str, Tensor], proposals: Sequence[Instances]
    ) -> list[Instances]:
        """Detect boxes only: ``pred_boxes``, ``scores`` and ``pred_classes``, without masks and keypoints."""
        ...

    def forward_with_given_boxes(
        self, features: Mapping[str, Tensor], instances: Sequence[Instances]
    ) -> list[Instances]:
        """Predict masks and keypoints for known boxes."""
        ...


class SemanticHead(Protocol):
    """Predicts a class for every pixel from feature maps (``SemSegFPNHead``).

    Attributes:
        num_classes: number of labels.
        ignore_value: label of pixels without loss.
    """

    num_classes: int
    ignore_value: int

    def __call__(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, Losses]:
        """Return losses if ``(B, H, W)`` targets are given, else ``(B, K, H, W)`` logits at input resolution."""
        ...


@runtime_checkable
class Detector(Protocol):
    """A whole model: computes losses and results of a batch. ``MetaArchitecture`` implements it."""

    training: bool

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, most important first."""
        ...

    @property
    def input_format(self) -> str | None:
        """Channel order of ``image``: ``"RGB"``, ``"BGR"``, or None if the model does not declare one (RGB)."""
        ...

    @property
    def needs_proposals(self) -> bool:
        """True if each input must carry ``proposals``."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        ...

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute losses against the ground truth in the inputs, in any mode."""
        ...

    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Compute one result per image, in any mode."""
        ...

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one backbone pass, in any mode."""
        ...
