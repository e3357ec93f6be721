"""Which prediction answers for which ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hydet.layers.dense_ops import match_anchors
from hydet.structures import Boxes, pairwise_iou

__all__ = ["Matcher", "match_boxes"]


class Matcher:
    """Gives every prediction the ground truth it overlaps best, and a label by how well it does.

    Args:
        thresholds: ascending bounds that divide qualities into ``len(thresholds) + 1`` ranges; the lower bound of a
            range belongs to it.
        labels: one for each range: -1 (ignore), 0 (background) or 1 (match).
        allow_low_quality_matches: a prediction that is the best for some ground truth, ties included, is labelled 1
            whatever the quality, as long as that is above 0. It keeps the ground truth it overlaps best itself.

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
        """Match.

        Args:
            match_quality_matrix: ``(M, N)`` qualities, such as IoU, of M ground truths and N predictions.

        Returns:
            ``(N,)`` int64 index of the best ground truth, 0 where there is none, and ``(N,)`` int8 labels; without
            ground truth all labels are the lowest range's.
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
        """Set the labels of predictions that are the best for some ground truth to 1, in place."""
        best = match_quality_matrix.amax(dim=1, keepdim=True)  # (M, 1)
        is_best = ((match_quality_matrix == best) & (best > 0)).any(dim=0)
        match_labels.masked_fill_(is_best, 1)


def match_boxes(
    matcher: Callable[[Tensor], tuple[Tensor, Tensor]], gt_boxes: Boxes, predictions: Boxes
) -> tuple[Tensor, Tensor]:
    """Match upright boxes by IoU; a plain ``Matcher`` does so without the ``(M, N)`` matrix.

    Args:
        matcher: a ``Matcher``, a subclass of it, or anything that is called like one.
        gt_boxes: M boxes.
        predictions: N boxes.

    Returns:
        See ``Matcher.__call__``.
    """
    if type(matcher) is not Matcher:
        return matcher(pairwise_iou(gt_boxes, predictions))
    return match_anchors(
        predictions.tensor,
        gt_boxes.tensor,
        thresholds=matcher.thresholds,
        labels=matcher.labels,
        allow_low_quality_matches=matcher.allow_low_quality_matches,
    )
