from functools import partial

import pytest

from hydet.layers import ShapeSpec
from hydet.modeling import TorchvisionBackbone, channels_at_stride, resnet_channels


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "convnext_tiny"])
def test_channels_at_stride_of_torchvision_networks(name):
    make = partial(TorchvisionBackbone, model_name=name)
    channels = channels_at_stride(make_backbone=make, stride=32)
    assert channels == {"resnet18": 512, "regnet_y_400mf": 440, "convnext_tiny": 768}[name]
    with pytest.raises(ValueError, match=r"no feature of stride 64.*'res5': 32"):
        channels_at_stride(make_backbone=make, stride=64)


def test_channels_at_stride_takes_the_last_feature_of_a_stride(pooling_backbone):
    class DifferentChannels(pooling_backbone):
        def output_shape(self):
            return {"a": ShapeSpec(channels=2, stride=4), "b": ShapeSpec(channels=6, stride=4)}

    assert channels_at_stride(make_backbone=DifferentChannels, stride=4) == 6


def test_resnet_channels_double_with_every_stage():
    channels = [
        resnet_channels(res2_out_channels=64, feature=name) for name in ("res2", "res3", "res4", "res5")
    ]
    assert channels == [64, 128, 256, 512]
    with pytest.raises(ValueError, match="feature must be one of res2, res3, res4, res5, got 'stem'"):
        resnet_channels(res2_out_channels=64, feature="stem")
