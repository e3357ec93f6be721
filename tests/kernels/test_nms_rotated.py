"""Non-maximum suppression of rotated boxes."""

import pytest
import torch

from hydet.kernels import batched_nms_rotated, nms_rotated, nms_rotated_padded
from hydet.kernels.nms_rotated.op import _nms_rotated
from hydet.kernels.nms_rotated.reference import forward_reference

OP = "nms_rotated"


def make_boxes(count, extent=60.0):
    boxes = torch.rand(count, 5)
    boxes[:, :2] *= extent
    boxes[:, 2:4] = 5 + 30 * boxes[:, 2:4]
    boxes[:, 4] *= 360
    return boxes


def keep_of_definition(boxes, scores, threshold, groups=None):
    return forward_reference(boxes, scores, groups, threshold).tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.31, 0.7, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_matches_definition(forward, threshold, grouped):
    boxes, scores = make_boxes(100), torch.rand(100)
    groups = torch.randint(0, 3, (100,)) if grouped else None
    expected = forward_reference(boxes, scores, groups, threshold)
    torch.testing.assert_close(forward(boxes, scores, groups, threshold), expected)


@pytest.mark.parametrize("count", [0, 1, 32, 33])
def test_sizes(forward, count):
    boxes, scores = make_boxes(count), torch.rand(count)
    expected = forward_reference(boxes, scores, None, 0.31)
    torch.testing.assert_close(forward(boxes, scores, None, 0.31), expected)


def test_invalid_boxes_and_strides(forward):
    boxes, scores = make_boxes(20, extent=10), torch.rand(20)
    boxes[0], boxes[1, 2], boxes[2, 0], boxes[3, 3] = torch.nan, 0, torch.inf, -1
    strided = boxes.t().contiguous().t()
    expected = keep_of_definition(boxes, scores, 0.2)
    assert set(expected) >= {0, 1, 2, 3}  # they overlap nothing
    assert forward(strided, scores, None, 0.2).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(forward, dtype):
    boxes, scores = make_boxes(40).to(dtype), torch.randperm(40).to(dtype)
    expected = keep_of_definition(boxes.float(), scores.float(), 0.31)
    assert forward(boxes, scores, None, 0.31).tolist() == expected


@pytest.mark.parametrize("first_block", [1, 5, 1000])
def test_block_size_does_not_matter(monkeypatch, first_block):
    from hydet.kernels.nms_rotated import torch_impl

    monkeypatch.setattr(torch_impl, "FIRST_BLOCK", first_block)
    for extent in (20.0, 300.0):  # few boxes survive, or most do
        boxes, scores, groups = make_boxes(90, extent), torch.rand(90), torch.randint(0, 2, (90,))
        keep = batched_nms_rotated(boxes, scores, groups, 0.3)
        assert keep.tolist() == keep_of_definition(boxes, scores, 0.3, groups)


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.4])
def test_matrix_and_list_of_pairs_agree(monkeypatch, threshold):
    from hydet.kernels.nms_rotated import torch_impl

    boxes, scores = make_boxes(150, 30.0), torch.rand(150)
    boxes[::11, 2] = 0  # meets nothing
    boxes[5, 0], boxes[6, 3] = torch.nan, torch.inf
    monkeypatch.setattr(torch_impl, "FEW_PAIRS", 0)
    results = []
    for crowded in (0, 10**9):
        monkeypatch.setattr(torch_impl, "CROWDED", crowded)
        results.append(nms_rotated(boxes, scores, threshold).tolist())
    assert results[0] == results[1]
    assert threshold < 0 or results[0] == keep_of_definition(boxes, scores, threshold)


def test_groups_do_not_suppress_each_other_at_any_coordinates():
    boxes, scores, groups = make_boxes(90) - 1000, torch.rand(90), torch.randint(-2, 3, (90,))
    boxes[:, 2:] += 1000
    keep = batched_nms_rotated(boxes, scores, groups, 0.2)
    assert keep.tolist() == keep_of_definition(boxes, scores, 0.2, groups)


@pytest.mark.parametrize("tests_per_chunk", [1, 7, 1 << 17])
def test_many_groups_are_listed_in_chunks_of_any_size(monkeypatch, tests_per_chunk):
    from hydet.kernels.nms_rotated import torch_impl

    monkeypatch.setattr(torch_impl, "CIRCLE_TESTS_PER_CHUNK", tests_per_chunk)
    boxes, scores = make_boxes(200, 40.0), torch.rand(200)
    groups = torch.randint(0, 20, (200,)) * 1000 - 5000  # large numbers, some of them negative
    groups[:40] = 7  # one group is larger than the others
    listed = batched_nms_rotated(boxes, scores, groups, 0.2)
    monkeypatch.setattr(torch_impl, "LISTING_COST", 10**9)  # never list pairs
    assert listed.tolist() == batched_nms_rotated(boxes, scores, groups, 0.2).tolist()
    assert listed.tolist() == keep_of_definition(boxes, scores, 0.2, groups)


def test_chain_keeps_every_other_box(forward):
    boxes = torch.tensor([[4.0 * i, 0, 10, 10, 0] for i in range(60)])
    keep = forward(boxes, torch.linspace(1, 0, 60), None, 0.3)
    assert keep.tolist() == list(range(0, 60, 2))


def test_equal_scores_rank_by_position(forward):
    boxes = torch.tensor([[5.0, 5, 4, 4, 0], [5, 5, 4, 4, 360], [5, 5, 4, 4, 90], [50, 5, 4, 4, 0]])
    assert forward(boxes, torch.ones(4), None, 0.5).tolist() == [0, 3]


def test_iou_equal_to_the_threshold_does_not_suppress():
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [1.0, 0, 2, 4, 0]])  # IoU 1/2
    assert nms_rotated(boxes, torch.tensor([2.0, 1]), 0.5).tolist() == [0, 1]
    assert nms_rotated(boxes, torch.tensor([2.0, 1]), 0.49).tolist() == [0]


def test_no_boxes():
    keep = nms_rotated(torch.empty(0, 5), torch.empty(0), 0.5)
    assert keep.shape == (0,) and keep.dtype == torch.int64


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


def test_padded_batches_match_single_images():
    boxes, scores = make_boxes(3 * 40).view(3, 40, 5), torch.rand(3, 40)
    groups, valid = torch.randint(0, 3, (3, 40)), torch.rand(3, 40) > 0.3
    valid[2] = False
    indices, counts = nms_rotated_padded(boxes, scores, 0.3, groups=groups, valid=valid, max_outputs=12)
    for i in range(3):
        rows = valid[i].nonzero().squeeze(1)
        keep = rows[batched_nms_rotated(boxes[i, rows], scores[i, rows], groups[i, rows], 0.3)][:12]
        assert indices[i, : counts[i]].tolist() == keep.tolist()
        assert not indices[i, counts[i] :].any()
    assert counts[2] == 0


def test_padded_arguments_are_checked():
    boxes, scores = torch.rand(2, 5, 5), torch.rand(2, 5)
    groups, valid = torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)

    def call(**changes):
        arguments = {"boxes": boxes, "scores": scores, "groups": groups, "valid": valid, "max_outputs": 3}
        arguments |= changes
        return nms_rotated_padded(iou_threshold=0.5, **arguments)

    with pytest.raises(ValueError, match=r"boxes must be \(B, N, 5\)"):
        call(boxes=boxes[..., :4])
    with pytest.raises(TypeError, match="floating point"):
        call(boxes=boxes.long())
    with pytest.raises(ValueError, match="groups must be"):
        call(groups=groups[:1])
    with pytest.raises(TypeError, match="valid must be bool"):
        call(valid=groups)
    with pytest.raises(ValueError, match="max_outputs"):
        call(max_outputs=-1)
