import pytest
import torch

from hydet.modeling.backbones.windows import merge_windows, pad_to_multiple, split_windows


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 4), (7, 10, 3), (1, 1, 5), (5, 5, 1)])
def test_merge_inverts_split_and_padding(height, width, size):
    grid = torch.randn(2, height, width, 3)
    padded = pad_to_multiple(grid, size)
    windows = split_windows(padded, size)
    assert windows.shape[1:] == (size, size, 3)
    merged = merge_windows(windows, size, tuple(padded.shape[1:3]), (height, width))
    torch.testing.assert_close(merged, grid)


def test_windows_are_sorted_by_row():
    windows = split_windows(torch.arange(16.0).view(1, 4, 4, 1), 2)
    assert windows[:, 0, 0, 0].tolist() == [0, 2, 8, 10]
