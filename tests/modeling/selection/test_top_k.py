import pytest
import torch

from hydet.modeling.selection.top_k import gather_rows, nan_to_lowest, padded_top_k, top_k


@pytest.mark.parametrize(("k", "expected"), [(0, 0), (2, 2), (9, 4)])
def test_rows_with_fewer_scores_return_all_indices(k, expected):
    scores = torch.rand(3, 4)
    index = top_k(scores, k)
    assert index.shape == (3, expected)
    assert torch.equal(scores.gather(1, index), scores.sort(dim=1, descending=True).values[:, :expected])


def test_nan_ranks_highest_unless_replaced():
    scores = torch.tensor([[1.0, float("nan"), float("inf"), -float("inf")]])
    assert top_k(scores, 1).item() == 1
    assert top_k(nan_to_lowest(scores), 2).tolist() == [[2, 0]]


def test_padded_top_k_of_known_sizes_has_no_padding():
    scores = torch.rand(3, 4)
    values, index = padded_top_k(scores, 9)
    assert torch.equal(values, scores.sort(dim=1, descending=True).values)
    assert torch.equal(index, top_k(scores, 9))


def test_program_for_any_number_of_scores_always_has_k():
    class TopThree(torch.nn.Module):
        def forward(self, scores):
            return padded_top_k(scores, 3)

    sizes = {1: torch.export.Dim("scores")}
    program = torch.export.export(TopThree(), (torch.rand(2, 7),), dynamic_shapes=(sizes,), strict=False)
    assert [tuple(value.meta["val"].shape) for value in program.graph.output_node().args[0]] == [(2, 3)] * 2
    values, index = program.module()(torch.tensor([[0.1, 0.2], [0.2, float("-inf")]]))
    assert values[0].tolist() == pytest.approx([0.2, 0.1, float("-inf")]) and index[0, :2].tolist() == [1, 0]
    assert (index >= 0).all() and (index < 2).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 4), (2, 5, 3, 4)])
def test_gathered_rows_equal_rows_indexed_per_image(shape):
    values = torch.rand(shape)
    index = torch.tensor([[4, 0], [1, 1]])
    rows = gather_rows(values, index)
    assert rows.shape == (2, 2, *shape[2:])
    assert torch.equal(rows[0, 0], values[0, 4]) and torch.equal(rows[1, 1], values[1, 1])
