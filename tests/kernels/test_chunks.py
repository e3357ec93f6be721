"""Partition of work into chunks of bounded size."""

import pytest
import torch

from hydet.kernels.chunks import chunks


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
def test_chunks_cover_all_items_and_respect_the_limit(limit):
    counts = torch.tensor([3, 0, 2, 7, 0, 0, 1, 4])
    result = list(chunks(counts.cumsum(0), limit))
    assert [n for items, _ in result for n in range(items.start, items.stop)] == list(range(8))
    for items, num_before in result:
        assert num_before == counts[: items.start].sum()
        assert counts[items].sum() <= limit or items.stop == items.start + 1


def test_no_items_and_no_entries():
    assert list(chunks(torch.empty(0, dtype=torch.int64), 5)) == []
    assert list(chunks(torch.zeros(3, dtype=torch.int64), 5)) == [(slice(0, 3), 0)]
