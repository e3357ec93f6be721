"""Assignment of predictions to ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hydet.layers.dense_ops import match_anchors
from hydet.structures import Boxes
from hydet.structures import pairwise_iou as _upright_iou

__all__ = ["Matcher", "match_boxes"]

# IoUs of kinds of boxes without a matching kernel are computed in tiles of this many pairs (16 MB).
PAIRS_PER_TILE = 1 << 22


class Matcher:
    """Assigns each prediction to the ground truth that it overlaps best, and labels it by the quality of the match.

    Args:
        thresholds: ascending bounds that divide qualities into ``len(thresholds) + 1`` ranges; the lower bound of a
            range belongs to it.
        labels: label of each range: -1 (ignore), 0 (background) or 1 (match).
        allow_low_quality_matches: also label a prediction 1 if it is the best one of some ground truth, ties included,
            and its quality is above 0. Each object then has at least one match, even if no anchor fits it well. The
            prediction stays assigned to the ground truth that it overlaps best.

    Raises:
        ValueError: if thresholds do not ascend, or labels do not fit them.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.1.2.
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality_matches: bool = False
    ) -> None:
        if list(thresholds) != sorted(thresholds):
            raise ValueError(f"thresholds must ascend, got {list(thresholds)}")
        if len(labels) != len(thresholds) + 1:
            raise ValueError(
                f"{len(thresholds)} thresholds make {len(thresholds) + 1} ranges, but there are {len(labels)} labels"
            )
        if any(label not in (-1, 0, 1) for label in labels):
            raise ValueError(f"labels must be -1, 0 or 1, got {list(labels)}")
        self.thresholds = list(thresholds)
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Assign predictions to ground truth.

        Args:
            match_quality_matrix: ``(M, N)`` qualities, such as IoU, of M ground truths and N predictions.

        Returns:
            ``(N,)`` int64 indices of the best ground truth, and ``(N,)`` int8 labels. Without ground truth, all indices
            are 0 and all labels are that of the lowest range.
        """
        if match_quality_matrix.ndim != 2:
            raise ValueError(f"expected an (M, N) matrix, got shape {tuple(match_quality_matrix.shape)}")
        count = match_quality_matrix.shape[1]
        if match_quality_matrix.numel() == 0:
            matches = match_quality_matrix.new_zeros(count, dtype=torch.int64)
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        quality, matches = match_quality_matrix.max(dim=0)
        labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            labels.masked_fill_(quality >= threshold, label)
        if self.allow_low_quality_matches:
            self.set_low_quality_matches_(labels, match_quality_matrix)
        return matches, labels

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Label the best predictions of each ground truth 1, in place."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)  # (M, 1)
        is_best = ((match_quality_matrix == best) & (best > 0)).any(dim=0)
        match_labels.masked_fill_(is_best, 1)


def match_boxes(
    matcher: Callable[[Tensor], tuple[Tensor, Tensor]],
    gt_boxes: Boxes,
    predictions: Boxes,
    *,
    pairwise_iou: Callable[[Any, Any], Tensor] = _upright_iou,
) -> tuple[Tensor, Tensor]:
    """Assign boxes to ground-truth boxes by IoU.

    For a plain ``Matcher``, the ``(M, N)`` matrix of IoUs is never stored as a whole.

    Args:
        matcher: a ``Matcher``, a subclass, or another callable with the same argument and result.
        gt_boxes: M boxes.
        predictions: N boxes.
        pairwise_iou: IoU of this kind of boxes: M and N boxes to an ``(M, N)`` matrix; by default of upright boxes.

    Returns:
        See ``Matcher.__call__``.
    """
    if type(matcher) is not Matcher:
        return matcher(pairwise_iou(gt_boxes, predictions))
    if pairwise_iou is not _upright_iou:
        return _match_in_tiles(matcher, gt_boxes, predictions, pairwise_iou)
    return match_anchors(
        predictions.tensor,
        gt_boxes.tensor,
        thresholds=matcher.thresholds,
        labels=matcher.labels,
        allow_low_quality_matches=matcher.allow_low_quality_matches,
    )


def _match_in_tiles(
    matcher: Matcher, gt_boxes: Boxes, predictions: Boxes, pairwise_iou: Callable[[Any, Any], Tensor]
) -> tuple[Tensor, Tensor]:
    """Call a matcher for some predictions at a time. Only low-quality matches depend on all predictions."""
    tile_size = max(1, PAIRS_PER_TILE // max(1, len(gt_boxes)))
    if len(predictions) <= tile_size:
        return matcher(pairwise_iou(gt_boxes, predictions))
    without_low_quality = Matcher(matcher.thresholds, matcher.labels)
    best = torch.zeros(len(gt_boxes), device=gt_boxes.device)  # quality of the best prediction so far
    # Object, prediction and IoU where a prediction was the best one of an object so far.
    candidates: list[tuple[Tensor, Tensor, Tensor]] = []
    results: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(predictions), tile_size):
        quality = pairwise_iou(gt_boxes, predictions[first : first + tile_size])
        results.append(without_low_quality(quality))
        if matcher.allow_low_quality_matches:
            best = torch.maximum(best, quality.amax(dim=1))
            gt, prediction = ((quality == best[:, None]) & (quality > 0)).nonzero(as_tuple=True)
            candidates.append((gt, prediction + first, quality[gt, prediction]))
    matches, labels = (torch.cat(parts) for parts in zip(*results, strict=True))
    for gt, prediction, quality in candidates:
        labels[prediction[quality == best[gt]]] = 1
    return matches, labels
