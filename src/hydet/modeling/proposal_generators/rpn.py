"""Region proposal network.

N images, A anchors a cell, R_i = H_i * W_i * A anchors on level i, R over all levels, D numbers a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hydet.modeling.box_regression import BoxTransform, dense_box_regression_loss
from hydet.modeling.matcher import Matcher, match_boxes
from hydet.modeling.sampling import sample_balanced
from hydet.modeling.selection.proposals import select_proposals
from hydet.modeling.selection.top_k import gather_rows, top_k
from hydet.structures import Boxes, ImageList, Instances


__all__ = ["RPN"]


class RPN(nn.Module):
    """Scores and regresses anchors, and keeps the best boxes as proposals.

    Losses are computed exactly when ground truth is given. The mode (``train()`` or ``eval()``) only selects how many
    proposals are kept and whether non-finite ones are an error (in training) or dropped.

    Args:
        in_features: names of the feature maps, from high to low resolution.
        head: such as ``StandardRPNHead``.
        anchor_generator: such as ``DefaultAnchorGenerator``.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        box2box_transform: what the head's deltas mean.
        batch_size_per_image: anchors sampled for the loss, per image.
        positive_fraction: largest share of positives among them, in [0, 1].
        pre_nms_topk: proposals per level before suppression: (in training, in evaluation).
        post_nms_topk: proposals per image after suppression: likewise.
        nms_thresh: IoU above which the worse one of two proposals of a level goes.
        min_box_size: in pixels; both sides of a proposal are longer.
        anchor_boundary_thresh: if >= 0, anchors that reach over the image's border by this many pixels or more are
            not trained on.
        loss_weight: one number, or one for each of ``loss_rpn_cls`` and ``loss_rpn_loc`` (1 where left out).
        box_reg_loss_type: see ``dense_box_regression_loss``.
        smooth_l1_beta: likewise.

    Raises:
        ValueError: if parts do not fit together, or a number is out of range.

    Source: Ren et al. 2015 (arXiv:1506.01497), section 3.1; on pyramids, Lin et al. 2017 (arXiv:1612.03144).
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
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
                raise ValueError(f"{name} is a pair (in training, in evaluation), got {pair!r}")
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
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose regions, and compute losses if there is ground truth.

        Args:
            images: the batch; only the sizes are used.
            features: feature maps by name, ``(N, C, H, W)``.
            gt_instances: per image, with ``gt_boxes``.

        Returns:
            Per image, proposals with ``proposal_boxes`` and ``objectness_logits``, by descending score and without
            gradient; and the losses, empty without ground truth.

        Raises:
            ValueError: if a feature map is missing.
            NonFiniteProposalsError: in training mode, a ``FloatingPointError``.
        """
        missing = [name for name in self.in_features if name not in features]
        if missing:
            raise ValueError(f"RPN: in_features has {missing}; the backbone produces {list(features)}")
        levels = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(levels)
        logits, deltas = self.rpn_head(levels)
        logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]  # (N, A, H, W) -> (N, R_i)
        dim = self.anchor_generator.box_dim
        deltas = [  # (N, A * D, H, W) -> (N, R_i, D)
            x.unflatten(1, (-1, dim)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas
        ]
        losses: dict[str, Tensor] = {}
        if gt_instances is not None:
            labels, boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, labels, deltas, boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decide which anchors the loss is taken over, and what they should become.

        Args:
            anchors: per level, R_i boxes.
            gt_instances: per image, with ``gt_boxes``.

        Returns:
            Per image, ``(R,)`` int8 labels 1 (object), 0 (background) or -1 (not sampled), and the ``(R, D)`` boxes
            that the anchors were matched to; zeros in an image without ground truth.
        """
        every = type(anchors[0]).cat(anchors)
        if len(gt_instances) == 0:
            return [], []
        labelled = [self._label(every, gt) for gt in gt_instances]
        labels = torch.stack([labels for labels, _ in labelled])  # (N, R)
        sampled = sample_balanced(labels, self.batch_size_per_image, self.positive_fraction, bg_label=0)
        return list(labels.masked_fill(~sampled, -1).unbind(0)), [boxes for _, boxes in labelled]

    def _label(self, anchors: Boxes, gt: Instances) -> tuple[Tensor, Tensor]:
        matches, labels = self._match(gt.gt_boxes, anchors)
        if self.anchor_boundary_thresh >= 0:
            inside = anchors.inside_box(gt.image_size, self.anchor_boundary_thresh)
            labels = labels.masked_fill(~inside, -1)
        truth = gt.gt_boxes.tensor
        return labels, truth[matches] if truth.shape[0] > 0 else torch.zeros_like(anchors.tensor)

    def _match(self, gt_boxes: Boxes, anchors: Boxes) -> tuple[Tensor, Tensor]:
        return match_boxes(self.anchor_matcher, gt_boxes, anchors)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Losses over the sampled anchors.

        Args:
            anchors: per level, R_i boxes.
            pred_objectness_logits: per level, ``(N, R_i)``.
            gt_labels: per image, ``(R,)`` of 1, 0 and -1.
            pred_anchor_deltas: per level, ``(N, R_i, D)``.
            gt_boxes: per image, ``(R, D)``.

        Returns:
            ``loss_rpn_cls`` and ``loss_rpn_loc``: sums over anchors, divided by the number of samples asked for (not
            found), times their weights.
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
        """Decode the best anchors of each level and select among them; see ``find_top_rpn_proposals``.

        Args:
            anchors: per level, R_i boxes.
            pred_objectness_logits: per level, ``(N, R_i)``.
            pred_anchor_deltas: per level, ``(N, R_i, D)``.
            image_sizes: N pairs (height, width).

        Returns:
            Per image, ``Instances`` with ``proposal_boxes`` and ``objectness_logits``, without gradient.
        """
        top = [top_k(level, self.pre_nms_topk[self.training]) for level in pred_objectness_logits]
        scores = [level.gather(1, index) for level, index in zip(pred_objectness_logits, top, strict=True)]
        deltas = [gather_rows(level, index) for level, index in zip(pred_anchor_deltas, top, strict=True)]
        sources = [level.tensor[index] for level, index in zip(anchors, top, strict=True)]  # (N, k_i, D)
        boxes = self.box2box_transform.apply_deltas(torch.cat(deltas, dim=1), torch.cat(sources, dim=1))
        return select_proposals(
            boxes.split([index.shape[1] for index in top], dim=1),
            scores,
            image_sizes,
            nms_thresh=self.nms_thresh,
            post_nms_topk=self.post_nms_topk[self.training],
            min_box_size=self.min_box_size,
            training=self.training,
        )


def _check_fit(head: nn.Module, anchor_generator: nn.Module) -> None:
    """A head of our own, whose numbers are known, must predict for as many anchors as there are."""
    counts = set(getattr(anchor_generator, "num_anchors", []))
    if len(counts) > 1:
        raise ValueError(f"RPN: levels share a head, so they need equally many anchors a cell, got {counts}")
    expected = getattr(head, "num_anchors", None)
    if expected is not None and counts and expected not in counts:
        raise ValueError(f"RPN: head predicts for {expected} anchors a cell, anchor_generator makes {counts}")
    dims = getattr(head, "box_dim", None), getattr(anchor_generator, "box_dim", None)
    if None not in dims and dims[0] != dims[1]:
        raise ValueError(f"RPN: head has box_dim {dims[0]}, anchor_generator {dims[1]}")
