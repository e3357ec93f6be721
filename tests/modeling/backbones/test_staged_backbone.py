import pytest
import torch
from torch import nn

from hydet.layers import FrozenBatchNorm2d
from hydet.modeling import AnyNet, BasicBlock, BasicStem, ResBasicBlock, ResNet, SimpleStem


def make_resnet(**options):
    stages = [
        ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, norm="BN"),
        ResNet.make_stage(BasicBlock, 2, in_channels=8, out_channels=16, norm="BN", stride_per_block=[2, 1]),
    ]
    return ResNet(stem=BasicStem(out_channels=8), stages=stages, **options)


def make_anynet(**options):
    return AnyNet(
        stem_class=SimpleStem, stem_width=8, block_class=ResBasicBlock, depths=[1, 2], widths=[8, 16],
        group_widths=[1, 1], strides=[1, 2], bottleneck_ratios=[1.0, 1.0], **options,
    )  # fmt: skip


@pytest.fixture(params=[make_resnet, make_anynet])
def make(request):
    return request.param


def test_stages_go_from_fine_to_coarse(make):
    net = make()
    assert [stage[-1].out_channels for stage in net.stages] == [8, 16]
    assert [len(stage) for stage in net.stages] == [1, 2]


@torch.no_grad()
def test_forward_returns_requested_outputs_in_order_of_computation(make):
    names = ["stem", *make().stage_names]
    net = make(out_features=names[::-1]).eval()
    output = net(torch.randn(1, 3, 32, 32))
    assert list(output) == names
    torch.testing.assert_close(output[names[1]], net.stages[0](output["stem"]))


def test_image_without_batch_axis_raises(make):
    with pytest.raises(ValueError, match=r"Net takes images of shape \(N, C, H, W\), got \(3, 8, 8\)"):
        make()(torch.zeros(3, 8, 8))


def test_training_does_not_change_frozen_parts(make):
    net = make(freeze_at=2).train()
    last = net.stage_names[-1]
    assert not any(p.requires_grad for part in (net.stem, net.stages[0]) for p in part.parameters())
    assert all(p.requires_grad for p in net.stages[1].parameters())
    assert any(isinstance(m, FrozenBatchNorm2d) for m in net.stem.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.stages[0].modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.stages[1].modules())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.randn(2, 3, 32, 32))[last].sum().backward()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(last) for name in changed)


def test_freezing_does_not_change_outputs(make):
    torch.manual_seed(0)
    net = make().train()
    last = net.stage_names[-1]
    images = torch.randn(2, 3, 32, 32)
    net(images)
    expected = net.eval()(images)[last]
    assert net.freeze(3) is net
    torch.testing.assert_close(net(images)[last], expected)
    assert not any(p.requires_grad for p in net.parameters())
