"""Region heads for rotated boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from hydet.modeling.selection import fast_rcnn_inference_rotated
from hydet.structures import Boxes, Instances
from hydet.structures.rotated_boxes import pairwise_iou_rotated

from .fast_rcnn import FastRCNNOutputLayers, Predictions
from .standard_roi_heads import StandardROIHeads

__all__ = ["RROIHeads", "RotatedFastRCNNOutputLayers"]


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """``FastRCNNOutputLayers`` for rotated boxes (cx, cy, w, h, degrees counter-clockwise).

    Args:
        **kwargs: those of ``FastRCNNOutputLayers``, with a ``Box2BoxTransformRotated``.

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
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detections; see ``fast_rcnn_inference_rotated``.

        Args:
            predictions: see ``forward``.
            proposals: the R regions, per image, with ``proposal_boxes``, ``RotatedBoxes``.
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
        **kwargs: those of ``StandardROIHeads``, with an ``ROIAlignRotated`` pooler and a
            ``RotatedFastRCNNOutputLayers``.

    Raises:
        ValueError: if masks, keypoints or training on predicted boxes are asked for.

    Source: Ma et al. 2018 (arXiv:1703.01086).
    """

    pairwise_iou: Callable[[Boxes, Boxes], Tensor] = staticmethod(pairwise_iou_rotated)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.mask_on or self.keypoint_on:
            raise ValueError("RROIHeads predicts boxes only: leave out mask_* and keypoint_* arguments")
        if self.train_on_pred_boxes:
            raise ValueError("RROIHeads has no head that could train on predicted boxes")

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("rotated",)
