import pytest
import torch

from hydet.engine.loss_checks import check_losses


def test_scalar_losses_keep_their_names_and_order():
    losses = {"b": torch.tensor(1.0), "a": torch.tensor(2.0)}
    checked = check_losses(losses)
    assert list(checked) == ["b", "a"] and checked["a"] is losses["a"]
    assert checked is not losses


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.tensor(1.0), "dict of losses, but it returned Tensor"),
        ({}, "an empty dict"),
        ({"loss": 1.0}, "'loss' must be a scalar tensor, but it is float"),
        ({"loss": torch.ones(2)}, r"a tensor of shape \(2,\)"),
    ],
)
def test_anything_else_is_an_error_that_says_what_came(returned, message):
    with pytest.raises(TypeError, match=message):
        check_losses(returned)
