import pytest
import torch

from hydet.layers import Conv2d, FrozenBatchNorm2d
from hydet.modeling import optimize_training

from .conftest import ARCHITECTURES


def losses_of(model, batch):
    torch.manual_seed(3)
    with torch.no_grad():
        return {name: float(loss) for name, loss in model.compute_losses(batch).items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES, indirect=True)
def test_losses_equal_those_of_the_exact_model(architecture):
    batch = architecture.batch()
    expected = losses_of(architecture.model(), batch)
    assert losses_of(optimize_training(architecture.model()), batch) == pytest.approx(
        expected, rel=1e-3, abs=1e-6
    )


def gradients_of(backbone, image):
    """Return the gradients of a weighted sum of the feature maps."""
    torch.manual_seed(3)
    total = sum(
        (value * torch.randn(value.shape, dtype=value.dtype)).sum() for value in backbone(image).values()
    )
    total.backward()
    return {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "mask_rcnn_c4", "mask_rcnn_dc5", "mask_rcnn_vitdet"], indirect=True
)
def test_gradients_equal_those_of_the_exact_model(architecture):
    # In float64, where rounding does not decide about the activations that are nearly 0.
    exact, fast = architecture.model().double(), optimize_training(architecture.model()).double()
    image = exact.preprocess_image(architecture.batch()).tensor.double()
    expected, actual = gradients_of(exact.backbone, image), gradients_of(fast.backbone, image)
    assert actual.keys() == expected.keys()
    total = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-9 * total, name


def test_state_dicts_stay_the_same(architecture):
    model = architecture.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = optimize_training(model).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_frozen_norm_scales_the_weight():
    conv = Conv2d(3, 4, kernel_size=3, norm=FrozenBatchNorm2d(num_features=4))
    conv.norm.weight.uniform_(0.5, 2)
    conv.norm.bias.normal_()
    conv.norm.running_mean.normal_()
    conv.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    expected = conv(x)
    expected.sum().backward()
    gradient, conv.weight.grad = conv.weight.grad, None
    optimize_training(conv)
    actual = conv(x)
    actual.sum().backward()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(conv.weight.grad, gradient)
