"""Temporary modes and cached features of a detector."""

import pytest
import torch
from torch import nn

from hydet.interop.mmdet.forward_context import cache_features, use_forward_mode


class Network(nn.Module):
    """A detector of two parts that counts its feature passes."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = Head()
        self.passes = 0

    def extract_feat(self, images, scale=1.0):
        self.passes += 1
        return (self.backbone(images) * scale,)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.5))


@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_changes_modules_with_parts_but_not_layers(training):
    detector = Network().train(not training)
    with use_forward_mode(detector, training=training):
        assert detector.training is detector.head.training is training
        assert detector.head.layers.training is detector.backbone[1].training is not training
    assert all(module.training is not training for module in detector.modules())


def test_forward_mode_is_restored_after_an_error():
    detector = Network().eval()
    with pytest.raises(ZeroDivisionError), use_forward_mode(detector, training=True):
        _ = 1 / 0
    assert not any(module.training for module in detector.modules())


def test_features_of_the_same_images_are_computed_once():
    detector, images = Network(), torch.rand(1, 3, 4, 4)
    with cache_features(detector):
        first, second = detector.extract_feat(images), detector.extract_feat(images)
        assert first is second and detector.passes == 1
        detector.extract_feat(images.clone())
        assert detector.passes == 2
        detector.extract_feat(images, scale=2.0)  # other arguments bypass the cache
        assert detector.passes == 3
    assert "extract_feat" not in vars(detector)
    detector.extract_feat(images)
    assert detector.passes == 4


def test_features_are_float32_under_autocast():
    detector, dtypes = Network(), []
    detector.backbone[0].register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16), cache_features(detector):
        (features,) = detector.extract_feat(torch.rand(1, 3, 4, 4))
        assert features.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    assert dtypes == [torch.bfloat16]


def test_detector_without_extract_feat_is_unchanged():
    with torch.autocast("cpu", torch.bfloat16), cache_features(nn.Identity()):
        assert torch.is_autocast_enabled("cpu")
