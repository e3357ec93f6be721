import pytest
import torch

from hydet.layers import cat, cross_entropy, nonzero_tuple


def test_cross_entropy_of_empty_input_is_connected_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    assert loss == 0 and loss.requires_grad


def test_cat_returns_single_tensor_without_copy():
    x = torch.randn(2, 3)
    assert cat([x]) is x
    assert cat((x, x), dim=1).shape == (2, 6)
    with pytest.raises(TypeError, match="Tensor"):
        cat(x)


def test_nonzero_tuple_of_scalar():
    assert nonzero_tuple(torch.tensor(True))[0].tolist() == [0]
    assert [i.tolist() for i in nonzero_tuple(torch.eye(2))] == [[0, 1], [0, 1]]
