import pytest
import torch

from hydet.modeling import StandardRPNHead


@pytest.mark.parametrize("conv_dims", [(-1,), (-1, 12), (6, -1)])
def test_output_shapes_and_parameter_names_follow_conv_dims(conv_dims):
    head = StandardRPNHead(in_channels=8, num_anchors=3, box_dim=5, conv_dims=conv_dims)
    logits, deltas = head([torch.randn(2, 8, 4, 5), torch.randn(2, 8, 2, 3)])
    assert [x.shape for x in logits] == [(2, 3, 4, 5), (2, 3, 2, 3)]
    assert [x.shape for x in deltas] == [(2, 15, 4, 5), (2, 15, 2, 3)]
    names = {name.rsplit(".", 1)[0] for name in head.state_dict()}
    hidden = {"conv"} if len(conv_dims) == 1 else {f"conv.conv{i}" for i in range(len(conv_dims))}
    assert names == {"objectness_logits", "anchor_deltas"} | hidden


@pytest.mark.parametrize("conv_dims", [(), (0,), (8, -2)])
def test_invalid_conv_dims_raise(conv_dims):
    with pytest.raises(ValueError, match="conv_dims"):
        StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=conv_dims)


def test_joined_predictions_have_the_same_values_and_gradients():
    head = StandardRPNHead(in_channels=8, num_anchors=3, box_dim=5)
    maps = [torch.randn(2, 8, 4, 5, requires_grad=True), torch.randn(2, 8, 2, 3, requires_grad=True)]

    def values_and_gradients():
        logits, deltas = head(maps)
        total = sum((value**2).sum() for value in (*logits, *deltas))
        return *logits, *deltas, *torch.autograd.grad(total, [*maps, *head.parameters()])

    expected = values_and_gradients()
    head.joins_predictions = True
    torch.testing.assert_close(values_and_gradients(), expected)
