"""Region proposal network.

N images, A anchors per cell, R_i = H_i * W_i * A anchors on level i, R over all levels, D numbers per box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.modeling.box_regression import BoxTransform, dense_box_regression_loss
from hydet.modeling.matcher import Matcher, match_boxes
from hydet.modeling.protocols import AnchorGenerator
from hydet.modeling.sampling import sample_balanced
from hydet.modeling.selection.dense import by_anchor
from hydet.modeling.selection.proposals import select_proposal_boxes, to_proposals
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes
from hydet.modeling.selection.top_k import gather_rows, padded_top_k
from hydet.structures import Boxes, ImageList, Instances, Losses

__all__ = ["RPN"]


@runtime_checkable
class SizedRPNHead(Protocol):
    """An RPN head that declares its number of anchors and box dimension, such as ``StandardRPNHead``.

    Attributes:
        num_anchors: number of anchors per cell.
        box_dim: numbers per box.
    """

    num_anchors: int
    box_dim: int


class RPN(nn.Module):
    """Region proposal network: scores and regresses anchors, and keeps the best boxes as proposals.

    Losses are computed only if ground truth is given. The mode (``train()`` or ``eval()``) only decides how many
    proposals are kept, and whether non-finite ones are an error (in training) or dropped.

    Args:
        in_features: names of the feature maps, from high to low resolution.
        head: such as ``StandardRPNHead``.
        anchor_generator: such as ``DefaultAnchorGenerator``.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        box2box_transform: encodes boxes as deltas and decodes them.
        batch_size_per_image: number of anchors per image that are sampled for the loss.
        positive_fraction: largest fraction of positive anchors among them, in [0, 1].
        pre_nms_topk: number of proposals per level before suppression, as a pair (in training, in evaluation).
        post_nms_topk: number of proposals per image after suppression, as a pair (in training, in evaluation).
        nms_thresh: IoU above which the lower-scoring one of two proposals of a level is dropped.
        min_box_size: in pixels; both sides of a proposal must be longer.
        anchor_boundary_thresh: if >= 0, anchors that extend past the border of the image by this many pixels or more
            get no loss.
        loss_weight: factor of both losses, or a mapping with ``loss_rpn_cls`` and ``loss_rpn_loc`` (1 by default).
        box_reg_loss_type: see ``dense_box_regression_loss``.
        smooth_l1_beta: see ``dense_box_regression_loss``.

    Raises:
        ValueError: if parts do not fit together, or a number is out of range.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.1; on pyramids, Lin et al. 2017 (arXiv:1612.03144).
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: AnchorGenerator,
        anchor_matcher: Matcher,
        box2box_transform: BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | Mapping[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= positive_fraction <= 1:
            raise ValueError(f"positive_fraction must lie in [0, 1], got {positive_fraction}")
        if batch_size_per_image <= 0:
            raise ValueError(f"batch_size_per_image must be positive, got {batch_size_per_image}")
        for name, pair in (("pre_nms_topk", pre_nms_topk), ("post_nms_topk", post_nms_topk)):
            if len(pair) != 2:
                raise ValueError(f"{name} must be a pair (in training, in evaluation), got {pair!r}")
        _check_fit(head, anchor_generator)
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        if not isinstance(loss_weight, Mapping):
            loss_weight = {"loss_rpn_cls": loss_weight, "loss_rpn_loc": loss_weight}
        self.loss_weight = dict(loss_weight)
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @property
    def box_dim(self) -> int:
        """Numbers per box: 4, or 5 for rotated boxes."""
        return self.anchor_generator.box_dim

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Propose regions, and compute losses if ground truth is given.

        Args:
            images: the batch; only its image sizes are used.
            features: feature maps by name, ``(N, C, H, W)``.
            gt_instances: per image, with ``gt_boxes``.

        Returns:
            Per image, proposals with ``proposal_boxes`` and ``objectness_logits``, by descending score and without
            gradient; and the losses, which are empty without ground truth.

        Raises:
            ValueError: if a feature map is missing.
            NonFiniteProposalsError: in training mode, if boxes or scores are infinite or NaN.
        """
        anchors, logits, deltas = self._predict(features)
        losses: Losses = {}
        if gt_instances is not None:
            labels, boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, labels, deltas, boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def propose_padded(
        self, features: Mapping[str, Tensor], image_sizes: ImageSizes
    ) -> tuple[SelectedBoxes, Tensor]:
        """Propose regions without waiting for the device; no shape depends on the data.

        Args:
            features: feature maps by name, ``(N, C, H, W)``.
            image_sizes: N pairs (height, width), or an ``(N, 2)`` tensor of them.

        Returns:
            The proposals, whose ``scores`` are logits, and the ``(N,)`` number of candidates per image that were
            dropped because their box or score is not finite.
        """
        return self._select(*self._predict(features), image_sizes)

    def _predict(self, features: Mapping[str, Tensor]) -> tuple[Sequence[Boxes], list[Tensor], list[Tensor]]:
        """Return the anchors, ``(N, R_i)`` logits and ``(N, R_i, D)`` deltas of each level."""
        missing = [name for name in self.in_features if name not in features]
        if missing:
            raise ValueError(f"RPN: in_features has {missing}; the backbone produces {list(features)}")
        levels = [features[name] for name in self.in_features]
        logits, deltas = self.rpn_head(levels)
        dim = self.anchor_generator.box_dim
        return (
            self.anchor_generator(levels),
            [by_anchor(x, 1).squeeze(2) for x in logits],  # (N, A, H, W) -> (N, R_i)
            [by_anchor(x, dim) for x in deltas],
        )

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label anchors as object or background, and sample the anchors that get a loss.

        Args:
            anchors: per level, R_i boxes.
            gt_instances: per image, with ``gt_boxes``.

        Returns:
            Per image, ``(R,)`` int8 labels 1 (object), 0 (background) or -1 (not sampled), and the ``(R, D)`` boxes
            that the anchors were matched to; zeros in an image without ground truth.
        """
        all_anchors = type(anchors[0]).cat(anchors)
        if len(gt_instances) == 0:
            return [], []
        labels, matched_boxes = zip(*(self._label(all_anchors, gt) for gt in gt_instances), strict=True)
        all_labels = torch.stack(labels)  # (N, R)
        sampled = sample_balanced(all_labels, self.batch_size_per_image, self.positive_fraction, bg_label=0)
        return list(all_labels.masked_fill(~sampled, -1).unbind(0)), list(matched_boxes)

    def _label(self, anchors: Boxes, gt: Instances) -> tuple[Tensor, Tensor]:
        matches, labels = self._match(gt.gt_boxes, anchors)
        if self.anchor_boundary_thresh >= 0:
            inside = anchors.inside_box(gt.image_size, self.anchor_boundary_thresh)
            labels = labels.masked_fill(~inside, -1)
        gt_boxes = gt.gt_boxes.tensor
        return labels, gt_boxes[matches] if gt_boxes.shape[0] > 0 else torch.zeros_like(anchors.tensor)

    def _match(self, gt_boxes: Boxes, anchors: Boxes) -> tuple[Tensor, Tensor]:
        return match_boxes(self.anchor_matcher, gt_boxes, anchors)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> Losses:
        """Compute the losses of the sampled anchors.

        Args:
            anchors: per level, R_i boxes.
            pred_objectness_logits: per level, ``(N, R_i)``.
            gt_labels: per image, ``(R,)`` of 1, 0 and -1.
            pred_anchor_deltas: per level, ``(N, R_i, D)``.
            gt_boxes: per image, ``(R, D)``.

        Returns:
            ``loss_rpn_cls`` and ``loss_rpn_loc``: sums over anchors, divided by the number of anchors to sample, times
            their weights.
        """
        logits = torch.cat(list(pred_objectness_logits), dim=1).float()  # (N, R)
        labels = torch.stack(list(gt_labels)) if len(gt_labels) else torch.zeros_like(logits)
        if len(gt_boxes) == 0:  # a batch without images
            return {
                name: self.loss_weight.get(name, 1.0)
                * (logits.sum() + sum(d.sum() for d in pred_anchor_deltas))
                for name in ("loss_rpn_cls", "loss_rpn_loc")
            }
        objectness = F.binary_cross_entropy_with_logits(
            logits, (labels == 1).to(logits.dtype), weight=(labels >= 0).to(logits.dtype), reduction="sum"
        )
        localization = dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            labels == 1,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        # The number of anchors to sample, even if fewer were sampled. It is the same for both losses, so the balance of
        # classification and regression does not depend on how many anchors are positive.
        normalizer = self.batch_size_per_image * len(gt_labels)
        losses = {"loss_rpn_cls": objectness / normalizer, "loss_rpn_loc": localization / normalizer}
        return {name: value * self.loss_weight.get(name, 1.0) for name, value in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Decode the best anchors of each level, and select proposals among them; see ``find_top_rpn_proposals``.

        Only the best anchors are decoded, since decoding all of them takes longer than the selection.

        Args:
            anchors: per level, R_i boxes.
            pred_objectness_logits: per level, ``(N, R_i)``.
            pred_anchor_deltas: per level, ``(N, R_i, D)``.
            image_sizes: N pairs (height, width).

        Returns:
            Per image, ``Instances`` with ``proposal_boxes`` and ``objectness_logits``, without gradient.
        """
        selected, num_non_finite = self._select(
            anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
        )
        return to_proposals(selected, num_non_finite, image_sizes, training=self.training)

    def _select(
        self,
        anchors: Sequence[Boxes],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: ImageSizes,
    ) -> tuple[SelectedBoxes, Tensor]:
        """Decode the best anchors of each level, and select among them; see ``propose_padded``."""
        scores, top = zip(
            *(padded_top_k(level, self.pre_nms_topk[self.training]) for level in logits), strict=True
        )
        best_deltas = [gather_rows(level, index) for level, index in zip(deltas, top, strict=True)]
        sources = [level.tensor[index] for level, index in zip(anchors, top, strict=True)]  # (N, k_i, D)
        boxes = self.box2box_transform.apply_deltas(torch.cat(best_deltas, dim=1), torch.cat(sources, dim=1))
        return select_proposal_boxes(
            boxes,
            torch.cat(scores, dim=1),
            torch.cat([torch.full_like(index, i) for i, index in enumerate(top)], dim=1),
            image_sizes,
            nms_thresh=self.nms_thresh,
            post_nms_topk=self.post_nms_topk[self.training],
            min_box_size=self.min_box_size,
        )


def _check_fit(head: nn.Module, anchor_generator: AnchorGenerator) -> None:
    """Check that levels have equally many anchors per cell, and that a head that declares its sizes fits them."""
    counts = set(anchor_generator.num_anchors)
    if len(counts) > 1:
        raise ValueError(
            f"RPN: levels share a head, so they need equally many anchors per cell, got {counts}"
        )
    if not isinstance(head, SizedRPNHead):
        return
    if head.num_anchors not in counts:
        raise ValueError(
            f"RPN: head predicts for {head.num_anchors} anchors per cell, anchor_generator makes {counts}"
        )
    if head.box_dim != anchor_generator.box_dim:
        raise ValueError(f"RPN: head has box_dim {head.box_dim}, anchor_generator {anchor_generator.box_dim}")
