import pytest
import torch

from hydet.modeling import (
    NonFiniteProposalsError,
    find_top_rpn_proposals,
    find_top_rrpn_proposals,
)
from hydet.structures import RotatedBoxes, pairwise_iou

SIZES = [(60, 80), (50, 70)]


def levels(counts=(40, 15), images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    boxes, logits = [], []
    for count in counts:
        corner = 90 * torch.rand(images, count, 2, generator=generator) - 20
        size = 4 + 40 * torch.rand(images, count, 2, generator=generator)
        boxes.append(torch.cat([corner, corner + size], dim=2))
        logits.append(torch.randn(images, count, generator=generator))
    return boxes, logits


def find(boxes, logits, function=find_top_rpn_proposals, **kwargs):
    settings = {
        "image_sizes": SIZES,
        "nms_thresh": 0.5,
        "pre_nms_topk": 30,
        "post_nms_topk": 20,
        "min_box_size": 2.0,
        "training": False,
    }
    return function(boxes, logits, **(settings | kwargs))


def test_proposals_are_sorted_clipped_and_large_enough():
    for output, (height, width) in zip(find(*levels()), SIZES, strict=True):
        boxes, scores = output.proposal_boxes.tensor, output.objectness_logits
        assert output.image_size == (height, width)
        assert 0 < len(output) <= 20
        assert (scores.diff() <= 0).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > 2).all()


def test_levels_do_not_suppress_one_another():
    box = torch.tensor([[[10.0, 10, 30, 30], [11, 10, 30, 30]]]).expand(2, 2, 4)
    logits = [torch.tensor([[1.0, 0.5]] * 2), torch.tensor([[0.9, 0.4]] * 2)]
    for output in find([box, box], logits):
        assert output.objectness_logits.tolist() == pytest.approx([1.0, 0.9])


def test_proposals_of_a_level_do_not_overlap():
    boxes, logits = levels(counts=(200,))
    for output in find(boxes, logits, pre_nms_topk=200, post_nms_topk=200, nms_thresh=0.3):
        iou = pairwise_iou(output.proposal_boxes, output.proposal_boxes).fill_diagonal_(0)
        assert iou.max() <= 0.3


@pytest.mark.parametrize("function", [find_top_rpn_proposals, find_top_rrpn_proposals])
def test_images_of_a_batch_are_independent(function):
    boxes, logits = levels()
    if function is find_top_rrpn_proposals:
        boxes = [torch.cat([b[..., :2], b[..., 2:].abs() + 3, 90 * b[..., :1].sin()], dim=2) for b in boxes]
    together = find(boxes, logits, function)
    for i in range(2):
        (alone,) = find(
            [b[i : i + 1] for b in boxes],
            [x[i : i + 1] for x in logits],
            function,
            image_sizes=SIZES[i : i + 1],
        )
        torch.testing.assert_close(alone.proposal_boxes.tensor, together[i].proposal_boxes.tensor)
        torch.testing.assert_close(alone.objectness_logits, together[i].objectness_logits)


def test_inputs_do_not_change():
    boxes, logits = levels()
    before = [x.clone() for x in (*boxes, *logits)]
    find(boxes, logits)
    assert all(torch.equal(a, b) for a, b in zip(before, (*boxes, *logits), strict=True))


def test_non_finite_candidates_are_dropped_in_evaluation():
    boxes, logits = levels()
    indices = find([b[:, 3:] if i == 0 else b for i, b in enumerate(boxes)], [logits[0][:, 3:], logits[1]])
    boxes[0][:, 0, 1] = float("nan")
    boxes[0][:, 1, 2] = float("inf")
    logits[0][:, 2] = -float("inf")
    for a, b in zip(find(boxes, logits, pre_nms_topk=60), indices, strict=True):
        assert b.objectness_logits.shape[0] <= a.objectness_logits.shape[0]
        assert a.proposal_boxes.tensor.isfinite().all()
        assert a.objectness_logits.isfinite().all()


def test_non_finite_candidates_raise_in_training():
    boxes, logits = levels()
    logits[1][1, :3] = float("nan")
    with pytest.raises(FloatingPointError, match="3 in image 1") as caught:
        find(boxes, logits, training=True)
    assert isinstance(caught.value, NonFiniteProposalsError)
    assert caught.value.image_indices == (1,)


def test_no_large_boxes_no_boxes_or_no_images_give_no_proposals():
    assert [len(x) for x in find(*levels(), min_box_size=500.0)] == [0, 0]
    assert [len(x) for x in find(*levels(counts=(0, 0)))] == [0, 0]
    assert find(*levels(images=0), image_sizes=[]) == []


def test_rotated_boxes_are_clipped_only_if_upright():
    boxes = torch.tensor([[[70.0, 30, 40, 20, 0.5], [70, 30, 40, 20, 30], [10, 10, 8, 8, 350]]])
    logits = torch.tensor([[3.0, 2, 1]])
    (output,) = find([boxes], [logits], find_top_rrpn_proposals, image_sizes=[(60, 80)], nms_thresh=0.9)
    assert isinstance(output.proposal_boxes, RotatedBoxes)
    wanted = torch.tensor([[65.0, 30, 30, 20, 0.5], [70, 30, 40, 20, 30], [10, 10, 8, 8, -10]])
    torch.testing.assert_close(output.proposal_boxes.tensor, wanted)
