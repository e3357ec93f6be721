import pytest
import torch
from torch import nn

from hydet.modeling import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, ResNet, make_resnet


def small(**options):
    stages = [
        ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, norm="BN"),
        ResNet.make_stage(BasicBlock, 2, in_channels=8, out_channels=16, norm="BN", stride_per_block=[2, 1]),
    ]
    return ResNet(stem=BasicStem(out_channels=8), stages=stages, **options)


# The start of the state dict of every published detector with a 50-layer trunk.
PUBLISHED_NAMES = [
    "",
    "stem.conv1.weight 64x3x7x7",
    "stem.conv1.norm.weight 64",
    "stem.conv1.norm.bias 64",
    "stem.conv1.norm.running_mean 64",
    "stem.conv1.norm.running_var 64",
    "res2.0.shortcut.weight 256x64x1x1",
    "res2.0.shortcut.norm.weight 256",
    "res2.0.shortcut.norm.bias 256",
    "res2.0.shortcut.norm.running_mean 256",
    "res2.0.shortcut.norm.running_var 256",
    "res2.0.conv1.weight 64x64x1x1",
    "res2.0.conv1.norm.weight 64",
    "",
][1:-1]


def test_state_dict_has_names_of_published_weights():
    with torch.device("meta"):
        state = make_resnet(depth=50, out_features=["res5"]).state_dict()
    output = [f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in state.items()]
    assert output[: len(PUBLISHED_NAMES)] == PUBLISHED_NAMES
    assert len(output) == 5 * 53 and output[-1] == "res5.2.conv3.norm.running_var 2048"


@pytest.mark.parametrize(("depth", "tensors"), [(18, 100), (34, 180), (50, 265), (101, 520), (152, 775)])
def test_make_default_stages_agrees_with_make_resnet(depth, tensors):
    with torch.device("meta"):
        one_call = make_resnet(depth=depth, stride_in_1x1=False, out_features=["res2", "res5"])
        stages = ResNet.make_default_stages(depth, norm="FrozenBN")
        by_hand = ResNet(stem=BasicStem(norm="FrozenBN"), stages=stages, out_features=["res2", "res5"])
    shapes = [{n: t.shape for n, t in net.state_dict().items()} for net in (one_call, by_hand)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == tensors
    assert [s.stride for s in one_call.output_shape().values()] == [4, 32]


def test_make_resnet_options_reach_the_blocks():
    with torch.device("meta"):
        net = make_resnet(
            depth=50, in_channels=5, norm="GN", num_groups=32, width_per_group=8, stride_in_1x1=False,
            deform_on_per_stage=(False, False, True, True), deform_modulated=True, deform_num_groups=2,
            out_features=["res3", "res4"], freeze_at=0,
        )  # fmt: skip
    assert net.stage_names == ("res2", "res3", "res4")
    assert net.stem.conv1.in_channels == 5
    assert type(net.res3[0]) is BottleneckBlock and type(net.res4[0]) is DeformBottleneckBlock
    assert net.res3[0].conv2.groups == 32 and net.res3[0].conv2.weight.shape[0] == 512
    assert net.res4[0].conv2_offset.out_channels == 54
    assert isinstance(net.res2[0].conv1.norm, nn.GroupNorm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 51}, "depth must be one of"),
        ({"depth": 18, "num_groups": 2}, "supports neither groups"),
        ({"depth": 34, "deform_on_per_stage": (False, False, False, True)}, "nor deformable stages"),
        ({"depth": 50, "res5_dilation": 4}, "res5_dilation must be 1 or 2"),
        ({"depth": 50, "deform_on_per_stage": (True,)}, "deform_on_per_stage needs 4"),
        ({"depth": 50, "out_features": ["res6"]}, "res6"),
        ({"depth": 50, "out_features": []}, "no name"),
        ({"depth": 50, "norm": "bn"}, "norm must be one of"),
    ],
)
def test_make_resnet_rejects_invalid_options(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        make_resnet(**options)


def test_constructors_take_keywords_only():
    with pytest.raises(TypeError):
        BasicStem(3, 64)
    with pytest.raises(TypeError):
        ResNet(BasicStem(), [])


def test_stages_that_do_not_fit_raise():
    stage = ResNet.make_stage(BasicBlock, 1, in_channels=4, out_channels=8)
    with pytest.raises(ValueError, match="takes 4 channels, but its input has 8"):
        ResNet(stem=BasicStem(out_channels=8), stages=[stage])
    with pytest.raises(TypeError, match="Linear"):
        ResNet(stem=BasicStem(out_channels=8), stages=[[nn.Linear(8, 8)]])
    with pytest.raises(ValueError, match="at least one stage"):
        ResNet(stem=BasicStem(), stages=[])


def test_unknown_out_features_raise():
    with pytest.raises(ValueError, match=r"\['res4'\]; available are \['stem', 'res2', 'res3'\]"):
        small(out_features=["res3", "res4"])
    with pytest.raises(TypeError, match="list of names"):
        small(out_features="res3")


@pytest.mark.parametrize("key", ["dilation_per_block", "dilations_per_block"])
def test_make_stage_accepts_both_spellings_of_dilation_per_block(key):
    blocks = ResNet.make_stage(
        BottleneckBlock, 2, in_channels=8, out_channels=16, bottleneck_channels=4, **{key: [1, 3]}
    )
    assert [block.conv2.dilation for block in blocks] == [(1, 1), (3, 3)]


def test_make_stage_rejects_wrong_per_block_options():
    with pytest.raises(ValueError, match="needs 2 values"):
        ResNet.make_stage(BasicBlock, 2, in_channels=8, out_channels=8, stride_per_block=[1])
    with pytest.raises(ValueError, match="not both"):
        ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, stride=1, stride_per_block=[1])


def test_classifier_without_other_outputs_keeps_all_stages():
    net = small(num_classes=5, out_features=["linear"]).eval()
    assert net.stage_names == ("res2", "res3")
    assert net(torch.randn(2, 3, 32, 32))["linear"].shape == (2, 5)
    assert net.output_shape()["linear"].channels == 5 and net.output_shape()["linear"].stride is None


def test_exports_with_dynamic_size():
    net = small(out_features=["res2", "res3"]).eval()
    height, width = torch.export.Dim("height", min=2, max=512), torch.export.Dim("width", min=2, max=512)
    program = torch.export.export(
        net, (torch.randn(1, 3, 64, 64),), dynamic_shapes={"x": {2: 8 * height, 3: 8 * width}}
    )
    images = torch.randn(1, 3, 128, 160)
    torch.testing.assert_close(program.module()(images), net(images))
