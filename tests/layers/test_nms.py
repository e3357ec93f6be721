import pytest
import torch

from hydet.layers import batched_nms, batched_nms_rotated, nms, nms_rotated


def random_boxes(count, *, low=0.0, spread=100.0, size=40.0):
    corner = low + torch.rand(count, 2) * spread
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * size], dim=1)


def group_by_group(boxes, scores, idxs, threshold):
    indices = []
    for group in idxs.unique():
        members = (idxs == group).nonzero()[:, 0]
        indices.append(members[nms(boxes[members], scores[members], threshold)])
    indices = torch.cat(indices)
    return indices[scores[indices].argsort(descending=True)]


def upright(boxes):
    """Xyxy as (cx, cy, w, h, 0 degrees)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return torch.cat([boxes[:, :2] + size / 2, size, torch.zeros(len(boxes), 1)], dim=1)


@pytest.mark.parametrize("count", [1, 60, 1500])
@pytest.mark.parametrize("low", [0.0, -80.0, -5000.0])
def test_batched_nms_matches_nms_per_group(count, low):
    boxes, scores, idxs = random_boxes(count, low=low), torch.rand(count), torch.randint(0, 5, (count,))
    indices = batched_nms(boxes, scores, idxs, 0.3)
    assert indices.tolist() == group_by_group(boxes, scores, idxs, 0.3).tolist()


def test_groups_stay_apart_at_negative_coordinates():
    boxes = torch.tensor([[0.0, 0, 10, 10], [-11, -11, -1, -1]])
    assert batched_nms(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5).tolist() == [0, 1]


def test_many_groups_keep_precision():
    boxes = torch.tensor([[4000.1, 4000.1, 4004.1, 4004.1], [4001.1, 4000.1, 4005.1, 4004.1]])  # IoU 0.6
    for group in (0, 1202):
        idxs = torch.full((2,), group)
        assert len(batched_nms(boxes, torch.tensor([0.9, 0.8]), idxs, 0.601)) == 2
        assert len(batched_nms(boxes, torch.tensor([0.9, 0.8]), idxs, 0.599)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_empty_input_and_dtypes(dtype):
    none = torch.zeros(0, 4, dtype=dtype)
    assert batched_nms(none, none[:, 0], torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=dtype)
    scores = torch.tensor([0.5, 0.9, 0.1], dtype=dtype)
    assert batched_nms(boxes, scores, torch.zeros(3, dtype=torch.int64), 0.5).tolist() == [1, 2]


def test_different_lengths_raise():
    with pytest.raises(ValueError, match=r"\(3, 2, 3\)"):
        batched_nms(torch.zeros(3, 4), torch.zeros(2), torch.zeros(3), 0.5)


def test_nms_rotated_of_upright_boxes_matches_nms():
    boxes, scores, groups = random_boxes(40), torch.rand(40), torch.randint(0, 3, (40,))
    assert nms_rotated(upright(boxes), scores, 0.4).tolist() == nms(boxes, scores, 0.4).tolist()
    indices = batched_nms_rotated(upright(boxes), scores, groups, 0.4)
    assert indices.tolist() == batched_nms(boxes, scores, groups, 0.4).tolist()


def test_nms_rotated_of_empty_input():
    none = torch.zeros(0, 5)
    assert nms_rotated(none, none[:, 0], 0.5).shape == (0,)
    assert batched_nms_rotated(none, none[:, 0], none[:, 0].long(), 0.5).shape == (0,)
