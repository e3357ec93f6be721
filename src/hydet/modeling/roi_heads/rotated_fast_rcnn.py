"""ROI heads for rotated boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from hydet.modeling.protocols import Task
from hydet.modeling.selection import fast_rcnn_inference_rotated
from hydet.structures import Instances, pairwise_iou_rotated

from .fast_rcnn import FastRCNNOutputLayers
from .standard_roi_heads import StandardROIHeads

__all__ = ["RROIHeads", "RotatedFastRCNNOutputLayers"]


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` for rotated boxes (cx, cy, w, h, degrees counter-clockwise).

    Args:
        **kwargs: arguments of ``FastRCNNOutputLayers``, with a ``Box2BoxTransformRotated``.

    Raises:
        ValueError: if ``box2box_transform`` is not for rotated boxes.

    Source: Ma et al. 2018 (arXiv:1703.01086).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.box_dim != 5:
            raise ValueError(
                f"rotated boxes need a Box2BoxTransformRotated, got {type(self.box2box_transform).__name__}"
            )

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Select detections; see ``fast_rcnn_inference_rotated``.

        Args:
            predictions: output of ``forward``.
            proposals: the R regions, per image, with ``RotatedBoxes`` as ``proposal_boxes``.

        Returns:
            The detections of each image, and the index of the proposal that each detection comes from.
        """
        return fast_rcnn_inference_rotated(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


class RROIHeads(StandardROIHeads):
    """``StandardROIHeads`` for rotated boxes, without masks and keypoints.

    Args:
        **kwargs: arguments of ``StandardROIHeads``, with an ``ROIAlignRotated`` pooler and
            ``RotatedFastRCNNOutputLayers``.

    Raises:
        ValueError: if arguments for masks, keypoints or training on predicted boxes are given.

    Source: Ma et al. 2018 (arXiv:1703.01086).
    """

    pairwise_iou: Callable[[Any, Any], Tensor] = staticmethod(pairwise_iou_rotated)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.mask_on or self.keypoint_on:
            raise ValueError("RROIHeads predicts boxes only: leave out mask_* and keypoint_* arguments")
        if self.train_on_pred_boxes:
            raise ValueError(
                "RROIHeads has no mask or keypoint head to train on predicted boxes: leave out train_on_pred_boxes"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """``rotated`` boxes."""
        return ("rotated",)
