"""Suppression of rotated boxes."""

import pytest
import torch

from hydet.kernels import batched_nms_rotated, box_iou_rotated, nms_rotated
from hydet.kernels.nms_rotated.op import _nms_rotated
from hydet.kernels.nms_rotated.reference import nms_rotated_reference


def make_boxes(count, extent=60.0):
    numbers = torch.rand(count, 5)
    numbers[:, :2] *= extent
    numbers[:, 2:4] = 5 + 30 * numbers[:, 2:4]
    numbers[:, 4] *= 360
    return numbers


def greedy(boxes, scores, threshold, groups=None):
    iou = box_iou_rotated(boxes, boxes)
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if all(iou[i, k] <= threshold or (groups is not None and groups[i] != groups[k]) for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_is_greedy(threshold):
    boxes, scores = make_boxes(120), torch.rand(120)
    assert nms_rotated(boxes, scores, threshold).tolist() == greedy(boxes, scores, threshold)


@pytest.mark.parametrize("first_block", [1, 5, 1000])
def test_the_size_of_a_block_changes_nothing(monkeypatch, first_block):
    from hydet.kernels.nms_rotated import reference

    monkeypatch.setattr(reference, "FIRST_BLOCK", first_block)
    for extent in (20.0, 300.0):  # where few stay, and where most do
        boxes, scores, groups = make_boxes(90, extent), torch.rand(90), torch.randint(0, 2, (90,))
        kept = batched_nms_rotated(boxes, scores, groups, 0.3)
        assert kept.tolist() == greedy(boxes, scores, 0.3, groups)


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.4])
def test_a_table_and_a_list_of_pairs_agree(monkeypatch, threshold):
    from hydet.kernels.nms_rotated import reference

    boxes, scores = make_boxes(150, 30.0), torch.rand(150)
    boxes[::11, 2] = 0  # meets nothing
    boxes[5, 0], boxes[6, 3] = torch.nan, torch.inf
    monkeypatch.setattr(reference, "FEW_PAIRS", 0)
    kept = []
    for crowded in (0, 10**9):
        monkeypatch.setattr(reference, "CROWDED", crowded)
        kept.append(nms_rotated(boxes, scores, threshold).tolist())
    assert kept[0] == kept[1]
    assert threshold < 0 or kept[0] == greedy(boxes, scores, threshold)


def test_groups_do_not_suppress_one_another_at_any_coordinates():
    boxes, scores, groups = make_boxes(90) - 1000, torch.rand(90), torch.randint(-2, 3, (90,))
    boxes[:, 2:] += 1000
    kept = batched_nms_rotated(boxes, scores, groups, 0.2)
    assert kept.tolist() == greedy(boxes, scores, 0.2, groups)


@pytest.mark.parametrize("tests_per_chunk", [1, 7, 1 << 17])
def test_many_groups_are_listed_in_chunks_of_any_size(monkeypatch, tests_per_chunk):
    from hydet.kernels.nms_rotated import reference

    monkeypatch.setattr(reference, "CIRCLE_TESTS_PER_CHUNK", tests_per_chunk)
    boxes, scores = make_boxes(300, 40.0), torch.rand(300)
    groups = torch.randint(0, 30, (300,)) * 1000 - 5000  # large ones, a few of them below zero
    groups[:40] = 7  # and one that is larger than others
    listed = batched_nms_rotated(boxes, scores, groups, 0.2)
    monkeypatch.setattr(reference, "LISTING_COSTS", 10**9)  # never
    assert listed.tolist() == batched_nms_rotated(boxes, scores, groups, 0.2).tolist()
    assert listed.tolist() == greedy(boxes, scores, 0.2, groups)


def test_a_chain_alternates():
    boxes = torch.tensor([[4.0 * i, 0, 10, 10, 0] for i in range(60)])
    assert nms_rotated(boxes, torch.linspace(1, 0, 60), 0.3).tolist() == list(range(0, 60, 2))


def test_equal_scores_rank_by_position():
    boxes = torch.tensor([[5.0, 5, 4, 4, 0], [5, 5, 4, 4, 360], [5, 5, 4, 4, 90], [50, 5, 4, 4, 0]])
    assert nms_rotated(boxes, torch.ones(4), 0.5).tolist() == [0, 3]


def test_iou_equal_to_the_threshold_stays():
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [1.0, 0, 2, 4, 0]])  # IoU 1/2
    assert nms_rotated(boxes, torch.tensor([2.0, 1]), 0.5).tolist() == [0, 1]
    assert nms_rotated(boxes, torch.tensor([2.0, 1]), 0.49).tolist() == [0]


def test_boxes_that_overlap_nothing_stay():
    boxes = make_boxes(5)
    boxes[0], boxes[1, 2], boxes[2, 0] = torch.nan, 0, torch.inf
    assert set(nms_rotated(boxes, torch.rand(5), 0.1).tolist()) >= {0, 1, 2}


def test_empty():
    nothing = nms_rotated(torch.empty(0, 5), torch.empty(0), 0.5)
    assert nothing.shape == (0,) and nothing.dtype == torch.int64


@pytest.mark.parametrize("count", [0, 1, 32, 33, 100])
@pytest.mark.parametrize("grouped", [False, True])
def test_triton_matches_reference(triton_device, count, grouped):
    from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated

    boxes, scores = make_boxes(count), torch.rand(count)
    groups = torch.randint(0, 3, (count,)) if grouped else None
    got = launch_nms_rotated(
        boxes.to(triton_device),
        scores.to(triton_device),
        groups.to(triton_device) if grouped else None,
        0.31,
    )
    assert got.tolist() == nms_rotated_reference(boxes, scores, groups, 0.31).tolist()


def test_triton_on_bad_boxes_and_strides(triton_device):
    from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated

    boxes, scores = make_boxes(20, extent=10), torch.rand(20)
    boxes[0], boxes[1, 2], boxes[2, 0], boxes[3, 3] = torch.nan, 0, torch.inf, -1
    strided = boxes.t().contiguous().t().to(triton_device)
    got = launch_nms_rotated(strided, scores.to(triton_device), None, 0.2)
    assert got.tolist() == nms_rotated_reference(boxes, scores, None, 0.2).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(triton_device, dtype):
    from hydet.kernels.nms_rotated.triton_impl import launch_nms_rotated

    boxes, scores = make_boxes(40).to(dtype), torch.randperm(40).to(dtype)
    expected = greedy(boxes.float(), scores.float(), 0.31)
    assert nms_rotated(boxes, scores, 0.31).tolist() == expected
    got = launch_nms_rotated(boxes.to(triton_device), scores.to(triton_device), None, 0.31)
    assert got.tolist() == expected


def test_bad_arguments():
    with pytest.raises(ValueError, match="scores must be"):
        nms_rotated(make_boxes(3), torch.rand(2), 0.5)
    with pytest.raises(ValueError, match="idxs must be"):
        batched_nms_rotated(make_boxes(3), torch.rand(3), torch.zeros(4), 0.5)


def test_registration():
    torch.library.opcheck(_nms_rotated, (make_boxes(6), torch.rand(6), None, 0.3))
    torch.library.opcheck(_nms_rotated, (make_boxes(6), torch.rand(6), torch.arange(6) % 2, 0.3))


def test_compiles_and_exports():
    class Model(torch.nn.Module):
        def forward(self, boxes, scores, groups):
            return boxes[batched_nms_rotated(boxes, scores, groups, 0.3)]

    args = make_boxes(30), torch.rand(30), torch.randint(0, 2, (30,))
    expected = Model()(*args)
    torch.testing.assert_close(torch.compile(Model(), fullgraph=True, backend="aot_eager")(*args), expected)
    dynamic = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), args, dynamic_shapes=(dynamic, dynamic, dynamic))
    torch.testing.assert_close(program.module()(*args), expected)
