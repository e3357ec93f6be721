import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import FCOSHead, RetinaNetHead


@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN"])
def test_batch_norms_keep_statistics_per_level_and_share_parameters(norm):
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=32)] * 2, num_classes=2, num_anchors=1, conv_dims=[32], norm=norm
    )
    logits, _ = head([torch.randn(2, 32, 8, 8), 5 + torch.randn(2, 32, 4, 4)])
    assert [x.shape for x in logits] == [(2, 2, 8, 8), (2, 2, 4, 4)]
    if norm == "BN":  # statistics per level, shared affine parameters
        means = [head.state_dict()[f"cls_subnet.1.{i}.running_mean"] for i in range(2)]
        assert not torch.equal(*means)
        assert "cls_subnet.1.weight" in head.state_dict()


def test_initial_scores_equal_the_prior():
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=8)], num_classes=2, num_anchors=3, conv_dims=[], prior_prob=0.02
    )
    (logits,), _ = head([torch.zeros(1, 8, 2, 2)])
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.02))


def test_fcos_head_also_predicts_centerness():
    head = FCOSHead(input_shape=[ShapeSpec(channels=8)], num_classes=2, conv_dims=[8])
    outputs = head([torch.zeros(1, 8, 4, 6)])
    assert [level.shape for (level,) in outputs] == [(1, 2, 4, 6), (1, 4, 4, 6), (1, 1, 4, 6)]


def test_fcos_head_scales_levels_and_predicts_centerness_from_either_branch():
    shapes, x = [ShapeSpec(channels=8)] * 2, [torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)]
    head = FCOSHead(
        input_shape=shapes, num_classes=2, conv_dims=[8], centerness_branch="class", scale_per_level=True
    )
    plain = FCOSHead(input_shape=shapes, num_classes=2, conv_dims=[8])
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if k != "scales"})
    torch.nn.init.normal_(plain.ctrness.weight)
    head.ctrness.load_state_dict(plain.ctrness.state_dict())
    head.scales.data.copy_(torch.tensor([2.0, 3.0]))
    (_, deltas, centerness), (_, plain_deltas, _) = head(x), plain(x)
    for level, expected, factor in zip(deltas, plain_deltas, (2, 3), strict=True):
        torch.testing.assert_close(level, expected * factor)
    plain.bbox_subnet = plain.cls_subnet
    torch.testing.assert_close(centerness, plain(x)[2])
    with pytest.raises(ValueError, match="centerness_branch must be 'box' or 'class', got 'mask'"):
        FCOSHead(input_shape=shapes, num_classes=2, conv_dims=[8], centerness_branch="mask")


@pytest.mark.parametrize(
    ("channels", "settings", "message"),
    [
        ((8, 16), {}, "equal channels"),
        ((8, 8), {"prior_prob": 0.0}, "prior_prob"),
        ((None, None), {}, "number of channels"),
    ],
)
def test_invalid_arguments_raise(channels, settings, message):
    shapes = [ShapeSpec(channels=c) for c in channels]
    with pytest.raises(ValueError, match=message):
        RetinaNetHead(input_shape=shapes, num_classes=2, num_anchors=1, conv_dims=[8], **settings)


def test_another_number_of_levels_raises():
    head = RetinaNetHead(input_shape=[ShapeSpec(channels=8)] * 2, num_classes=2, num_anchors=1, conv_dims=[8])
    with pytest.raises(ValueError, match="2 levels"):
        head([torch.zeros(1, 8, 4, 4)])
