"""Matching of anchors with ground-truth boxes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hydet.kernels import match_anchors
from hydet.kernels.match_anchors.op import _match_anchors
from hydet.kernels.match_anchors.reference import forward_reference
from hydet.kernels.match_anchors.torch_impl import forward_torch
from hydet.structures import pairwise_iou

OP = "match_anchors"
SETTINGS = [
    ([0.3, 0.7], [0, -1, 1], True),
    ([0.4, 0.5], [0, -1, 1], True),
    ([0.5], [0, 1], False),
    ([], [1], False),
]


def make_boxes(count, *, grid=None):
    center = torch.rand(count, 2) * torch.tensor([200.0, 120.0])
    half_size = torch.rand(count, 2) * 30 + 3
    boxes = torch.cat([center - half_size, center + half_size], dim=1)
    return boxes if grid is None else (boxes / grid).round() * grid  # a grid causes many exact ties


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("sizes", [(1, 1), (900, 7), (300, 70), (5000, 3)])
@pytest.mark.parametrize("grid", [None, 16.0])
def test_matches_definition(forward, settings, sizes, grid):
    anchors, gt_boxes = make_boxes(sizes[0], grid=grid), make_boxes(sizes[1], grid=grid)
    result, expected = forward(anchors, gt_boxes, *settings), forward_reference(anchors, gt_boxes, *settings)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("grid", [None, 16.0])
def test_definition_matches_matcher(settings, grid):
    from hydet.modeling.matcher import Matcher

    anchors, gt_boxes = make_boxes(300, grid=grid), make_boxes(40, grid=grid)
    expected = Matcher(*settings)(pairwise_iou(gt_boxes, anchors))
    torch.testing.assert_close(
        forward_reference(anchors, gt_boxes, *settings), tuple(expected), rtol=0, atol=0
    )


def test_ties_across_tiles_are_all_low_quality_matches(forward, monkeypatch):
    from hydet.kernels.match_anchors import torch_impl

    monkeypatch.setattr(torch_impl, "PAIRS_PER_TILE", 64)
    monkeypatch.setattr(torch_impl, "GT_BOXES_PER_TILE", 4)
    anchors, gt_boxes = make_boxes(40, grid=16.0).repeat(7, 1), make_boxes(11, grid=16.0)
    expected = forward_reference(anchors, gt_boxes, *SETTINGS[0])
    torch.testing.assert_close(forward(anchors, gt_boxes, *SETTINGS[0]), expected, rtol=0, atol=0)


def test_low_quality_match_keeps_the_ground_truth_of_highest_iou(forward):
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    gt_boxes = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 2]])  # the anchor is the best one for both
    matches, labels = forward(anchors, gt_boxes, [0.95], [0, 1], True)
    assert matches.tolist() == [0] and labels.tolist() == [1]


def test_ground_truth_without_overlap_makes_no_anchor_positive(forward):
    anchors, gt_boxes = make_boxes(20), torch.tensor([[1000.0, 1000, 1010, 1010]])
    matches, labels = forward(anchors, gt_boxes, [0.3, 0.7], [0, -1, 1], True)
    assert (matches == 0).all() and (labels == 0).all()


@pytest.mark.parametrize("sizes", [(0, 4), (5, 0), (0, 0)])
def test_no_anchors_or_no_ground_truth(forward, sizes):
    matches, labels = forward(make_boxes(sizes[0]), make_boxes(sizes[1]), [0.5], [-1, 1], True)
    assert matches.tolist() == [0] * sizes[0] and labels.tolist() == [-1] * sizes[0]


def test_degenerate_boxes_overlap_nothing(forward):
    anchors, gt_boxes = make_boxes(30), make_boxes(6)
    matches_of_valid, labels_of_valid = forward(anchors, gt_boxes[3:], *SETTINGS[0])
    gt_boxes[0], gt_boxes[1, 0], gt_boxes[2, 2:] = torch.nan, -torch.inf, gt_boxes[2, :2]
    matches, labels = forward(anchors, gt_boxes, *SETTINGS[0])
    assert torch.equal(labels, labels_of_valid)
    assert torch.equal(matches[labels == 1], matches_of_valid[labels == 1] + 3)
    anchors[0] = torch.nan
    matches, labels = forward(anchors, gt_boxes, *SETTINGS[0])
    assert matches[0] == 0 and labels[0] == 0
    expected = forward_reference(anchors, gt_boxes, *SETTINGS[0])
    torch.testing.assert_close((matches, labels), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_and_strides(forward, dtype):
    anchors, gt_boxes = make_boxes(50).to(dtype), make_boxes(5).to(dtype)
    expected = forward_reference(anchors, gt_boxes, *SETTINGS[0])
    result = forward(anchors.t().contiguous().t(), gt_boxes.t().contiguous().t(), *SETTINGS[0])
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return out


def test_torch_allocates_no_matrix():
    anchors, gt_boxes = make_boxes(20_000), make_boxes(500)  # their matrix of IoUs takes 40 MB
    with LargestTensor() as largest:
        forward_torch(anchors, gt_boxes, *SETTINGS[0])
    assert largest.size <= 2 * 2**20


@pytest.mark.gpu
def test_thousands_of_ground_truths_fit_in_a_gigabyte():
    anchors, gt_boxes = make_boxes(270_000).cuda(), make_boxes(2000).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    matches, labels = match_anchors(
        anchors, gt_boxes, thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    )
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 10**9
    iou = pairwise_iou(gt_boxes, anchors[:3000])
    assert torch.equal(matches[:3000], torch.where(iou.amax(dim=0) > 0, iou.argmax(dim=0), 0))
    assert labels.shape == (270_000,)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"gt_boxes must be \(N, 4\)"):
        match_anchors(make_boxes(2), torch.rand(2, 5), thresholds=[0.5], labels=[0, 1])
    with pytest.raises(ValueError, match="need 2 labels"):
        match_anchors(make_boxes(2), make_boxes(2), thresholds=[0.5], labels=[0])
    with pytest.raises(ValueError, match="ascending"):
        match_anchors(make_boxes(2), make_boxes(2), thresholds=[0.5, 0.4], labels=[0, -1, 1])


def test_registration():
    torch.library.opcheck(_match_anchors, (make_boxes(20), make_boxes(3), [0.3, 0.7], [0, -1, 1], True))


def test_compiles_and_exports():
    class Model(torch.nn.Module):
        def forward(self, anchors, gt_boxes):
            matches, labels = match_anchors(anchors, gt_boxes, thresholds=[0.5], labels=[0, 1])
            return gt_boxes[matches], labels

    args = make_boxes(30), make_boxes(4)
    expected = Model()(*args)
    torch.testing.assert_close(torch.compile(Model(), fullgraph=True, backend="aot_eager")(*args), expected)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), args, dynamic_shapes=(dynamic, dynamic))
    torch.testing.assert_close(program.module()(*args), expected)
