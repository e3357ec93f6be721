import pytest
import torch

from hydet.modeling.backbones.positions import (
    absolute_positions,
    decomposed_bias,
    make_absolute_positions,
    make_relative_positions,
    relative_positions,
    resize_grid,
)


@pytest.mark.parametrize(("q_size", "k_size"), [(4, 4), (2, 4), (4, 2), (3, 5), (1, 1)])
def test_relative_positions_depend_on_distance(q_size, k_size):
    length = 2 * max(q_size, k_size) - 1
    table = torch.arange(float(length))[:, None]
    output = relative_positions(table, q_size, k_size)[..., 0]
    assert output.shape == (q_size, k_size)
    assert output.min() >= 0 and output.max() <= length - 1
    assert (output.diff(dim=0) >= 0).all() and (output.diff(dim=1) <= 0).all()


def test_relative_position_table_of_another_length_is_resized():
    table = torch.linspace(0, 1, 7)[:, None]
    torch.testing.assert_close(relative_positions(table, 8, 8)[0, 0, 0], torch.tensor(0.5))
    assert relative_positions(table, 8, 8).shape == (8, 8, 1)


def test_decomposed_bias_equals_its_definition():
    torch.manual_seed(0)
    q, table_h, table_w = torch.randn(2, 3, 6, 4), torch.randn(5, 4), torch.randn(7, 4)
    output = decomposed_bias(q, table_h, table_w, (2, 3), (3, 4))
    down, across = relative_positions(table_h, 2, 3), relative_positions(table_w, 3, 4)
    for y, x, v, u in [(0, 0, 0, 0), (1, 2, 2, 3), (0, 1, 2, 0)]:
        expected = q[:, :, 3 * y + x] @ (down[y, v] + across[x, u])
        torch.testing.assert_close(output[:, :, 3 * y + x, 4 * v + u], expected)


def test_absolute_positions_skip_class_token_and_resize():
    positions = torch.cat([torch.full((1, 1, 2), 9.0), torch.arange(8.0).view(1, 4, 2)], dim=1)
    output = absolute_positions(positions, True, (2, 2))
    torch.testing.assert_close(output, torch.arange(8.0).view(1, 2, 2, 2))
    assert absolute_positions(positions, True, (3, 5)).shape == (1, 3, 5, 2)
    with pytest.raises(ValueError, match="5 position embeddings"):
        absolute_positions(positions, False, (2, 2))


def test_made_positions_have_the_size_of_the_grid():
    assert make_absolute_positions((3, 5), 8, True).shape == (1, 16, 8)
    assert make_absolute_positions((3, 5), 8, False).std().item() == pytest.approx(0.02, rel=0.3)
    zeros, random = (make_relative_positions(4, 64, zero_init=zero_init) for zero_init in (True, False))
    assert zeros.shape == random.shape == (7, 64)
    assert not zeros.any() and random.std().item() == pytest.approx(0.02, rel=0.3)


def test_resize_grid_returns_a_grid_of_the_same_size_unchanged():
    grid = torch.randn(1, 2, 3, 4)
    assert resize_grid(grid, (3, 4)) is grid
    torch.testing.assert_close(resize_grid(torch.ones(1, 2, 3, 4), (6, 5)), torch.ones(1, 2, 6, 5))
