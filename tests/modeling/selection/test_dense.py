import pytest
import torch

from hydet.modeling.selection.dense import (
    best_of_classes,
    by_anchor,
    by_cell,
    gather_anchors,
    top_anchors,
    top_pairs,
)

N, A, K, H, W = 2, 3, 4, 5, 6


@pytest.fixture
def logits():
    return torch.randn(N, A * K, H, W, generator=torch.Generator().manual_seed(0))


def test_by_cell_is_a_view(logits):
    cells = by_cell(logits, K)
    assert cells.shape == (N, H, W, A, K) and cells.data_ptr() == logits.data_ptr()
    assert torch.equal(cells[1, 2, 3, 1], logits[1, K : 2 * K, 2, 3])


def test_by_anchor_orders_anchors_by_row_column_and_anchor_of_the_cell(logits):
    anchors = by_anchor(logits, K)
    assert anchors.shape == (N, H * W * A, K)
    assert torch.equal(anchors[1, (2 * W + 3) * A + 1], logits[1, K : 2 * K, 2, 3])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_best_of_classes_is_the_maximum_of_each_anchor(logits, memory_format):
    expected = by_anchor(logits, K).amax(dim=2)
    assert torch.equal(best_of_classes(logits.contiguous(memory_format=memory_format), K), expected)


def test_gathering_from_cells_equals_gathering_from_anchors(logits):
    index = torch.tensor([[0, 37, 89], [12, 12, 5]])
    from_cells = gather_anchors(by_cell(logits, K), index)
    assert torch.equal(from_cells, gather_anchors(by_anchor(logits, K), index))
    assert torch.equal(from_cells[0, 1], by_anchor(logits, K)[0, 37])


def test_the_best_pairs_belong_to_the_best_anchors(logits):
    scores = by_anchor(logits, K)
    expected, _, _ = top_pairs(scores, 7)
    anchors = top_anchors(scores.amax(dim=2), 7)
    top_scores, index, classes = top_pairs(gather_anchors(scores, anchors), 7)
    assert torch.equal(top_scores, expected)
    image = torch.arange(N)[:, None]
    assert torch.equal(scores[image, anchors.gather(1, index), classes], expected)


def test_nan_is_never_among_the_best_pairs(logits):
    scores = by_anchor(logits, K).clone()
    scores[:, 0] = float("nan")
    assert top_pairs(scores, 5)[0].isfinite().all()
