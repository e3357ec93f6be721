import pytest
import torch

from hydet.modeling.selection.suppression import _suppress_flat, suppress


def candidates(images, count):
    corner = 60 * torch.rand(images, count, 2) - 20
    boxes = torch.cat([corner, corner + 2 + 30 * torch.rand(images, count, 2)], dim=2)
    return (
        boxes,
        torch.randn(images, count),
        torch.randint(0, 3, (images, count)),
        torch.rand(images, count) > 0.2,
    )


@pytest.mark.parametrize(("images", "count"), [(0, 5), (2, 0), (1, 1), (3, 60)])
@pytest.mark.parametrize("limit", [-1, 0, 7, 1000])
def test_both_ways_agree(images, count, limit):
    boxes, scores, groups, valid = candidates(images, count)
    order, counts = suppress(boxes, scores, groups, valid, 0.4, limit)
    width = count if limit < 0 else min(limit, count)
    other, others = _suppress_flat(boxes, scores, groups, valid, 0.4, width)
    assert order.shape == other.shape == (images, width)
    assert torch.equal(counts, others)
    for i, n in enumerate(counts.tolist()):
        assert torch.equal(order[i, :n], other[i, :n])


def test_invalid_ones_neither_remain_nor_suppress():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    valid = torch.tensor([[False, True, True]])
    order, counts = suppress(
        boxes, torch.tensor([[3.0, 2, 1]]), torch.zeros(1, 3, dtype=torch.int64), valid, 0.5, -1
    )
    assert order[0, : counts[0]].tolist() == [1, 2]
