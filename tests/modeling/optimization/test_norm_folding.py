import copy

import pytest
import torch
from torch import nn

from hydet.layers import Conv2d, CycleBatchNormList, FrozenBatchNorm2d, get_norm
from hydet.modeling import TorchvisionBackbone, fold_norms, make_resnet


def settle(model):
    """Give the batch norms of a model statistics and affine parameters that matter."""
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return model.eval()


def count_norms(model):
    count = sum(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in model.modules())
    assert count > 0
    return count


def outputs(model, image):
    with torch.no_grad():
        result = model(image)
    return list(result.values()) if isinstance(result, dict) else [result]


def assert_folds(model, image, expected_count):
    before = outputs(model, image)
    assert fold_norms(model) == expected_count
    for ours, theirs in zip(outputs(model, image), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "SyncBN", "naiveSyncBN"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_norm_of_a_convolution(norm, bias):
    conv = Conv2d(3, 8, kernel_size=3, bias=bias, norm=get_norm(norm, 8), activation=torch.relu)
    model = settle(nn.Sequential(conv))
    assert_folds(model, torch.randn(2, 3, 9, 9), 1)
    assert conv.norm is None and conv.bias is not None


def test_convolutions_and_norms_in_a_sequence():
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    assert_folds(model, torch.randn(1, 3, 8, 8), 1)  # the second norm follows no convolution
    assert isinstance(model[1], nn.Identity) and isinstance(model[3], nn.BatchNorm2d)


@pytest.mark.parametrize("freeze_at", [0, 2])
def test_a_resnet(freeze_at):
    model = settle(make_resnet(depth=18, norm="FrozenBN" if freeze_at else "BN", freeze_at=freeze_at))
    assert_folds(model, torch.randn(1, 3, 64, 64), count_norms(model))
    assert not any(isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d) for m in model.modules())


def test_a_network_of_torchvision():
    model = settle(TorchvisionBackbone(model_name="resnet18"))
    assert_folds(model, torch.randn(1, 3, 64, 64), count_norms(model))


def test_a_network_of_timm_keeps_the_activations_of_its_norms():
    pytest.importorskip("timm")
    from hydet.modeling import TimmBackbone

    model = settle(TimmBackbone(model_name="resnet10t", pretrained=False))
    assert_folds(model, torch.randn(1, 3, 64, 64), count_norms(model))


def test_norms_of_pyramid_levels_stay():
    norms = CycleBatchNormList(length=2, num_features=4)
    model = settle(nn.Sequential(nn.Conv2d(3, 4, 3), norms))
    assert fold_norms(model) == 0


class UsesConvolutionTwice(nn.Module):
    """The output of the convolution is used beside the norm, so the norm must not change it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def output_shape(self):
        return {}

    def forward(self, x):
        x = self.conv(x)
        return {"out": x + self.bn(x)}


def test_a_convolution_that_feeds_more_than_its_norm_stays():
    model = settle(UsesConvolutionTwice())
    image = torch.randn(1, 3, 16, 16)
    before = outputs(model, image)
    reference = copy.deepcopy(model.state_dict())
    assert fold_norms(model) == 0
    assert torch.equal(outputs(model, image)[0], before[0])
    assert all(torch.equal(value, reference[name]) for name, value in model.state_dict().items())


def test_training_mode_is_rejected():
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
