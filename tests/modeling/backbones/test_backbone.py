"""Properties of every backbone, and the functions of the base class."""

import copy

import pytest
import torch
from torch import nn

from hydet.modeling import FPN, Backbone, checkpoint_activations
from hydet.modeling.backbones.backbone import check_out_features


@torch.no_grad()
def test_features_have_declared_names_and_shapes(backbone):
    assert isinstance(backbone, Backbone)
    output = backbone(torch.randn(2, 3, 64, 96))
    declared = backbone.output_shape()
    assert list(output) == list(declared)
    for name, feature in output.items():
        spec = declared[name]
        assert feature.shape == (2, spec.channels, -(-64 // spec.stride), -(-96 // spec.stride))
        assert feature.isfinite().all()


@torch.no_grad()
def test_images_of_a_batch_are_independent(backbone):
    images = torch.randn(2, 3, 64, 64)
    both = backbone(images)
    second = backbone(images[1:])
    for name, feature in both.items():
        torch.testing.assert_close(feature[1:], second[name], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_empty_batch_gives_empty_features(backbone):
    for name, feature in backbone(torch.zeros(0, 3, 64, 64)).items():
        assert feature.shape[:2] == (0, backbone.output_shape()[name].channels)


@torch.no_grad()
def test_memory_format_does_not_change_features(backbone):
    images = torch.randn(1, 3, 64, 64)
    expected = backbone(images)
    output = copy.deepcopy(backbone).to(memory_format=torch.channels_last)(
        images.to(memory_format=torch.channels_last)
    )
    for name in expected:
        torch.testing.assert_close(output[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["regnet", "vit", "swin", "mvit", "fpn"])
@torch.no_grad()
def test_compiles_without_graph_breaks(name, make_small):
    backbone = getattr(make_small, name)().eval()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(compiled(images), backbone(images))


def test_builds_on_the_meta_device(build_backbone):
    with torch.device("meta"):
        net = build_backbone()
    assert all(tensor.is_meta for tensor in net.state_dict().values())


def test_backbone_is_abstract():
    with pytest.raises(TypeError, match="forward"):
        Backbone()


class CustomBackbone(Backbone):
    """A minimal backbone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self._out_features = ["x"]
        self._out_feature_channels = {"x": 4}
        self._out_feature_strides = {"x": 4}

    def forward(self, x):
        return {"x": self.conv(x)}


def test_custom_backbone_works_in_a_pyramid():
    pyramid = FPN(bottom_up=CustomBackbone(), in_features=["x"], out_channels=8)
    assert pyramid(torch.zeros(1, 3, 16, 16))["p2"].shape == (1, 8, 4, 4)
    assert CustomBackbone().size_divisibility == 0 and CustomBackbone().padding_constraints == {}


@pytest.mark.parametrize("module", [nn.Linear(1, 1), CustomBackbone()])
def test_checkpoint_activations_raises_without_a_backbone_that_supports_it(module):
    with pytest.raises(ValueError, match="no backbone with activation checkpointing"):
        checkpoint_activations(module)


def test_checkpoint_activations_finds_the_backbone_of_a_pyramid(make_small):
    pyramid = make_small.fpn()
    assert checkpoint_activations(pyramid) is pyramid
    assert pyramid.bottom_up.use_act_checkpoint


def test_check_out_features_rejects_unknown_names_an_empty_list_and_a_string():
    check_out_features("Net", ["b"], ["a", "b"])
    with pytest.raises(ValueError, match=r"Net: out_features has \['c'\]; available are \['a', 'b'\]"):
        check_out_features("Net", ["a", "c"], ["a", "b"])
    with pytest.raises(ValueError, match="no name"):
        check_out_features("Net", [], ["a"])
    with pytest.raises(TypeError, match="list of names, got the string 'a'"):
        check_out_features("Net", "a", ["a"])
