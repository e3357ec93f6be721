"""Parts of a bounded size."""

import pytest
import torch

from hydet.kernels.chunks import chunks


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
def test_parts_cover_all_items_and_keep_the_limit(limit):
    counts = torch.tensor([3, 0, 2, 7, 0, 0, 1, 4])
    parts = list(chunks(counts.cumsum(0), limit))
    assert [n for part, _ in parts for n in range(part.start, part.stop)] == list(range(8))
    for part, before in parts:
        assert before == counts[: part.start].sum()
        assert counts[part].sum() <= limit or part.stop == part.start + 1


def test_no_items():
    assert list(chunks(torch.empty(0, dtype=torch.int64), 5)) == []
    assert list(chunks(torch.zeros(3, dtype=torch.int64), 5)) == [(slice(0, 3), 0)]
