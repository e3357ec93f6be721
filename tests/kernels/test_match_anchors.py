"""Matching of anchors without the matrix, against the matrix."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hydet.kernels import match_anchors
from hydet.kernels.match.op import _match_anchors
from hydet.kernels.match.reference import match_anchors_reference
from hydet.modeling.matcher import Matcher
from hydet.structures import pairwise_iou

TRITON = ["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)]


def triton_device_of(name):
    pytest.importorskip("triton")
    if name == "interpreter" and torch.cuda.is_available():
        pytest.skip("kernels are compiled on this machine, so the interpreter is off")
    return torch.device("cpu" if name == "interpreter" else "cuda")


SETTINGS = [
    ([0.3, 0.7], [0, -1, 1], True),
    ([0.4, 0.5], [0, -1, 1], True),
    ([0.5], [0, 1], False),
    ([], [1], False),
]


def make_boxes(count, *, grid=None):
    center = torch.rand(count, 2) * torch.tensor([200.0, 120.0])
    half = torch.rand(count, 2) * 30 + 3
    boxes = torch.cat([center - half, center + half], dim=1)
    return boxes if grid is None else (boxes / grid).round() * grid  # a grid makes many exact ties


@pytest.fixture(params=["reference", *TRITON])
def match(request):
    if request.param == "reference":
        return match_anchors_reference
    device = triton_device_of(request.param)
    from hydet.kernels.match.triton_impl import launch_match_anchors

    def run(anchors, truths, *settings):
        return tuple(t.cpu() for t in launch_match_anchors(anchors.to(device), truths.to(device), *settings))

    return run


def expected_of(anchors, truths, settings):
    return Matcher(*settings)(pairwise_iou(truths, anchors))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("sizes", [(1, 1), (900, 7), (300, 70), (5000, 3)])
@pytest.mark.parametrize("grid", [None, 16.0])
def test_same_as_matcher(match, settings, sizes, grid):
    anchors, truths = make_boxes(sizes[0], grid=grid), make_boxes(sizes[1], grid=grid)
    for got, expected in zip(match(anchors, truths, *settings), expected_of(anchors, truths, settings)):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_ties_across_tiles_are_all_low_quality_matches(match, monkeypatch):
    from hydet.kernels.match import reference

    monkeypatch.setattr(reference, "PAIRS_PER_TILE", 64)
    monkeypatch.setattr(reference, "TRUTHS_PER_TILE", 4)
    settings = SETTINGS[0]
    anchors, truths = make_boxes(40, grid=16.0).repeat(7, 1), make_boxes(11, grid=16.0)
    for got, expected in zip(match(anchors, truths, *settings), expected_of(anchors, truths, settings)):
        assert torch.equal(got, expected)


def test_low_quality_match_keeps_its_own_best_truth(match):
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    truths = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 2]])  # both have their best anchor there
    matches, labels = match(anchors, truths, [0.95], [0, 1], True)
    assert matches.tolist() == [0] and labels.tolist() == [1]


def test_a_truth_without_overlap_makes_nothing_positive(match):
    anchors, truths = make_boxes(20), torch.tensor([[1000.0, 1000, 1010, 1010]])
    matches, labels = match(anchors, truths, [0.3, 0.7], [0, -1, 1], True)
    assert (matches == 0).all() and (labels == 0).all()


@pytest.mark.parametrize("sizes", [(0, 4), (5, 0), (0, 0)])
def test_empty(match, sizes):
    matches, labels = match(make_boxes(sizes[0]), make_boxes(sizes[1]), [0.5], [-1, 1], True)
    assert matches.tolist() == [0] * sizes[0] and labels.tolist() == [-1] * sizes[0]


def test_degenerate_boxes_overlap_nothing(match):
    anchors, truths = make_boxes(30), make_boxes(6)
    clean = match(anchors, truths[3:], *SETTINGS[0])
    truths[0], truths[1, 0], truths[2, 2:] = torch.nan, -torch.inf, truths[2, :2]
    matches, labels = match(anchors, truths, *SETTINGS[0])
    assert torch.equal(labels, clean[1])
    assert torch.equal(matches[labels == 1], clean[0][labels == 1] + 3)
    anchors[0] = torch.nan
    matches, labels = match(anchors, truths, *SETTINGS[0])
    assert matches[0] == 0 and labels[0] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_types_and_strides(match, dtype):
    anchors, truths = make_boxes(50).to(dtype), make_boxes(5).to(dtype)
    expected = match(anchors.float(), truths.float(), *SETTINGS[0])
    got = match(anchors.t().contiguous().t(), truths.t().contiguous().t(), *SETTINGS[0])
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return out


def test_there_is_no_matrix():
    anchors, truths = make_boxes(20_000), make_boxes(500)  # whose overlaps are 40 MB
    with LargestTensor() as largest:
        match_anchors_reference(anchors, truths, *SETTINGS[0])
    assert largest.size <= 2 * 2**20


@pytest.mark.gpu
def test_thousands_of_truths_fit_in_a_gigabyte():
    anchors, truths = make_boxes(270_000).cuda(), make_boxes(2000).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    matches, labels = match_anchors(
        anchors, truths, thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    )
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 10**9
    iou = pairwise_iou(truths, anchors[:3000])
    assert torch.equal(matches[:3000], torch.where(iou.amax(dim=0) > 0, iou.argmax(dim=0), 0))
    assert labels.shape == (270_000,)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"gt_boxes must be \(N, 4\)"):
        match_anchors(make_boxes(2), torch.rand(2, 5), thresholds=[0.5], labels=[0, 1])
    with pytest.raises(ValueError, match="need 2 labels"):
        match_anchors(make_boxes(2), make_boxes(2), thresholds=[0.5], labels=[0])
    with pytest.raises(ValueError, match="ascend"):
        match_anchors(make_boxes(2), make_boxes(2), thresholds=[0.5, 0.4], labels=[0, -1, 1])


def test_registration():
    torch.library.opcheck(_match_anchors, (make_boxes(20), make_boxes(3), [0.3, 0.7], [0, -1, 1], True))


def test_compiles_and_exports():
    class Model(torch.nn.Module):
        def forward(self, anchors, truths):
            matches, labels = match_anchors(anchors, truths, thresholds=[0.5], labels=[0, 1])
            return truths[matches], labels

    args = make_boxes(30), make_boxes(4)
    expected = Model()(*args)
    torch.testing.assert_close(torch.compile(Model(), fullgraph=True, backend="aot_eager")(*args), expected)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), args, dynamic_shapes=(dynamic, dynamic))
    torch.testing.assert_close(program.module()(*args), expected)
