import pytest
import torch

from hydet.kernels.match_anchors import torch_impl
from hydet.modeling import Matcher, match_boxes, matcher
from hydet.structures import Boxes, RotatedBoxes, pairwise_iou, pairwise_iou_rotated


def rpn_matcher(**kwargs):
    return Matcher(**({"thresholds": [0.3, 0.7], "labels": [0, -1, 1]} | kwargs))


def test_ranges_include_their_lower_bound():
    quality = torch.tensor([[0.0, 0.299, 0.3, 0.5, 0.7, 1.0]])
    matches, labels = rpn_matcher()(quality)
    assert matches.dtype == torch.int64
    assert labels.dtype == torch.int8
    assert labels.tolist() == [0, 0, -1, -1, 1, 1]


def test_matrix_does_not_change_and_may_be_non_contiguous():
    quality = torch.rand(30, 7).t()
    before = quality.clone()
    matches, labels = rpn_matcher(allow_low_quality_matches=True)(quality)
    assert torch.equal(quality, before)
    again = rpn_matcher(allow_low_quality_matches=True)(quality.contiguous())
    assert torch.equal(matches, again[0])
    assert torch.equal(labels, again[1])


def test_low_quality_matches_only_add_positives():
    quality = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)) * 0.6
    matches, strict = rpn_matcher()(quality)
    same, loose = rpn_matcher(allow_low_quality_matches=True)(quality)
    assert torch.equal(matches, same)
    assert (strict == 1).sum() == 0
    assert set(loose.nonzero().flatten().tolist()) >= set(quality.argmax(dim=1).tolist())
    changed = loose != strict
    assert (loose[changed] == 1).all()


def test_ground_truth_without_overlap_has_no_match():
    quality = torch.zeros(2, 5)
    quality[0, 3] = 0.2
    _, labels = rpn_matcher(allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("low", [0, -1])
def test_all_predictions_have_the_lowest_label_without_ground_truth(low):
    matcher = Matcher([0.5], [low, 1], allow_low_quality_matches=True)
    matches, labels = matcher(torch.zeros(0, 4))
    assert matches.tolist() == [0] * 4
    assert labels.tolist() == [low] * 4
    assert matcher(torch.zeros(3, 0))[0].shape == (0,)


@pytest.mark.parametrize(
    "arguments",
    [([0.7, 0.3], [0, -1, 1]), ([0.5], [0, 1, 1]), ([0.5], [0, 2])],
)
def test_invalid_arguments_raise(arguments):
    with pytest.raises(ValueError):
        Matcher(*arguments)


def test_qualities_that_are_not_a_matrix_raise():
    with pytest.raises(ValueError, match=r"\(4,\)"):
        rpn_matcher()(torch.zeros(4))


def some_boxes(count):
    corner = 80 * torch.rand(count, 2)
    return Boxes(torch.cat([corner, corner + 4 + 40 * torch.rand(count, 2)], dim=1))


@pytest.mark.parametrize("counts", [(0, 9), (5, 0), (1, 1), (7, 300)])
@pytest.mark.parametrize("low_quality", [False, True])
def test_match_boxes_equals_matching_the_iou_matrix(counts, low_quality):
    gt, predictions = (some_boxes(n) for n in counts)
    matcher = rpn_matcher(allow_low_quality_matches=low_quality)
    wanted = matcher(pairwise_iou(gt, predictions))
    output = match_boxes(matcher, gt, predictions)
    assert all(torch.equal(a, b) for a, b in zip(output, wanted, strict=True))


def test_custom_matchers_get_the_iou_matrix():
    def everything(quality):
        return quality.argmax(dim=0), torch.full((quality.shape[1],), 1)

    _, labels = match_boxes(everything, some_boxes(2), some_boxes(6))
    assert labels.tolist() == [1] * 6


def some_rotated_boxes(count):
    return RotatedBoxes(torch.cat([80 * torch.rand(count, 2), 4 + 40 * torch.rand(count, 3)], dim=1))


@pytest.mark.parametrize("counts", [(0, 9), (5, 0), (1, 1), (7, 300)])
@pytest.mark.parametrize("low_quality", [False, True])
def test_rotated_boxes_are_matched_alike_in_tiles(counts, low_quality, monkeypatch):
    torch.manual_seed(0)
    gt, predictions = (some_rotated_boxes(n) for n in counts)
    predictions = RotatedBoxes(
        predictions.tensor.repeat(2, 1)
    )  # the best prediction of each object occurs twice
    plain = rpn_matcher(allow_low_quality_matches=low_quality)
    wanted = plain(pairwise_iou_rotated(gt, predictions))
    for pairs in (350, 1 << 22):
        monkeypatch.setattr(matcher, "PAIRS_PER_TILE", pairs)
        output = match_boxes(plain, gt, predictions, pairwise_iou=pairwise_iou_rotated)
        assert all(torch.equal(a, b) for a, b in zip(output, wanted, strict=True))


def test_matching_needs_no_matrix_of_predictions_and_objects(largest_result, monkeypatch):
    monkeypatch.setattr(matcher, "PAIRS_PER_TILE", 1 << 14)
    plain = rpn_matcher(allow_low_quality_matches=True)
    rotated = some_rotated_boxes(200), some_rotated_boxes(1000)
    with largest_result() as largest:
        match_boxes(plain, *rotated, pairwise_iou=pairwise_iou_rotated)
    assert largest.numel <= 1 << 14
    # Operations inside an op are not seen, so this calls its implementation.
    gt, anchors = some_boxes(2000).tensor, some_boxes(2000).tensor
    with largest_result() as largest:
        torch_impl.forward_torch(anchors, gt, [0.3, 0.7], [0, -1, 1], True)
    assert largest.numel <= 4 * torch_impl.PAIRS_PER_TILE < 2000 * 2000
