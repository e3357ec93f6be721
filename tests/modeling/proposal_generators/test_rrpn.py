import pytest

from hydet.modeling import (
    RRPN,
    Box2BoxTransformRotated,
    DefaultAnchorGenerator,
    Matcher,
    RotatedAnchorGenerator,
    StandardRPNHead,
)

GRID = {"sizes": [[16]], "aspect_ratios": [[1.0]], "strides": [8]}


def make(anchor_generator, **settings):
    head = StandardRPNHead(in_channels=8, num_anchors=1, box_dim=anchor_generator.box_dim)
    return RRPN(
        in_features=["p3"],
        head=head,
        anchor_generator=anchor_generator,
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1]),
        box2box_transform=Box2BoxTransformRotated(weights=(1.0,) * 5),
        batch_size_per_image=8,
        positive_fraction=0.5,
        pre_nms_topk=(10, 10),
        post_nms_topk=(5, 5),
        **settings,
    )


def test_boxes_have_five_numbers():
    assert make(RotatedAnchorGenerator(**GRID, angles=[[0.0]])).box_dim == 5


def test_upright_anchors_raise():
    with pytest.raises(ValueError, match="RotatedAnchorGenerator"):
        make(DefaultAnchorGenerator(**GRID))


def test_anchor_boundary_thresh_raises():
    with pytest.raises(ValueError, match="anchor_boundary_thresh"):
        make(RotatedAnchorGenerator(**GRID, angles=[[0.0]]), anchor_boundary_thresh=0)
