"""Parts that arrive as partials are built with the shapes of the feature maps that they read."""

from functools import partial

import pytest
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    FastRCNNConvFCHead,
    LastLevelP6P7,
    RetinaNetHead,
    ROIPooler,
    SemSegFPNHead,
    make_each,
)
from hydet.modeling.joining import (
    build_dense_head,
    build_proposal_generator,
    build_roi_heads,
    build_sem_seg_head,
    build_top_block,
    measure_output_shape,
    shared_channels,
)

SHAPES = {
    "p2": ShapeSpec(channels=8, stride=4),
    "p3": ShapeSpec(channels=8, stride=8),
    "res5": ShapeSpec(channels=32, stride=32),
}
POOLED = ShapeSpec(channels=8, height=7, width=7)


class Holder(nn.Module):
    """Keeps the arguments that it was built with."""

    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments


def pooler(size):
    return ROIPooler(output_size=size, scales=[0.25, 0.125], sampling_ratio=0, pooler_type="ROIAlignV2")


BUILDERS = [build_proposal_generator, build_roi_heads, build_sem_seg_head, build_dense_head]


@pytest.mark.parametrize("build", BUILDERS)
def test_modules_are_returned_unchanged(build):
    part = Holder()
    assert build(part, SHAPES) is part
    assert build(None, SHAPES) is None


def test_head_of_a_proposal_generator_gets_the_channels_of_its_features():
    part = partial(Holder, in_features=["p2", "p3"], head=partial(Holder, num_anchors=3))
    built = build_proposal_generator(part, SHAPES)
    assert built.arguments["head"].arguments == {"num_anchors": 3, "in_channels": 8}
    head = Holder()
    assert build_proposal_generator(partial(Holder, head=head), SHAPES).arguments["head"] is head


def test_dense_and_semantic_heads_get_the_shapes():
    levels = [SHAPES["p2"], SHAPES["p3"]]
    head = build_dense_head(partial(RetinaNetHead, num_classes=2, num_anchors=1, conv_dims=[4]), levels)
    assert head.cls_subnet[0].in_channels == 8 and head.num_levels == 2
    make = partial(SemSegFPNHead, num_classes=2, conv_dims=4, common_stride=4, in_features=["p2", "p3"])
    assert build_sem_seg_head(make, SHAPES).in_features == ["p2", "p3"]


@pytest.mark.parametrize(("in_feature", "channels"), [("res5", 32), ("p5", 16)])
def test_top_block_reads_the_backbone_or_the_pyramid(in_feature, channels):
    make = partial(LastLevelP6P7, out_channels=16, in_feature=in_feature)
    assert build_top_block(make, SHAPES, 16).in_channels == channels


def test_branches_get_pooled_shapes_and_the_predictor_gets_the_output_of_the_box_head():
    part = partial(
        Holder,
        box_in_features=["p2", "p3"],
        box_pooler=pooler(7),
        box_head=partial(FastRCNNConvFCHead, conv_dims=[], fc_dims=[5]),
        box_predictor=partial(Holder),
        mask_in_features=["p2"],
        mask_pooler=pooler(14),
        mask_head=partial(Holder),
        keypoint_in_features=["p3"],
        keypoint_pooler=None,
        keypoint_head=partial(Holder),
    )
    arguments = build_roi_heads(part, SHAPES).arguments
    assert arguments["box_head"].fc1.in_features == 8 * 49
    assert arguments["box_predictor"].arguments["input_shape"] == ShapeSpec(channels=5)
    assert arguments["mask_head"].arguments["input_shape"] == ShapeSpec(channels=8, height=14, width=14)
    assert arguments["keypoint_head"].arguments["input_shape"] == {"p3": SHAPES["p3"]}


def test_every_stage_of_a_cascade_is_built():
    part = partial(
        Holder,
        box_in_features=["p2"],
        box_pooler=pooler(7),
        box_heads=partial(
            make_each, make=partial(FastRCNNConvFCHead, conv_dims=[], fc_dims=[5]), each=[{}, {}]
        ),
        box_predictors=partial(make_each, make=partial(Holder), each=[{"stage": 0}, {"stage": 1}]),
    )
    arguments = build_roi_heads(part, SHAPES).arguments
    assert [head.fc1.in_features for head in arguments["box_heads"]] == [392, 392]
    assert [p.arguments["stage"] for p in arguments["box_predictors"]] == [0, 1]
    assert arguments["box_predictors"][1].arguments["input_shape"] == ShapeSpec(channels=5)


def test_res5_heads_read_the_stage():
    def make_stage(*, in_channels, bottleneck_channels, out_channels):
        assert (in_channels, bottleneck_channels, out_channels) == (32, 16, 64)
        return [nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)]

    part = partial(
        Holder,
        in_features=["res5"],
        pooler=pooler(14),
        res5=partial(make_stage),
        box_predictor=partial(Holder),
        mask_head=partial(Holder),
    )
    arguments = build_roi_heads(part, SHAPES).arguments
    assert arguments["box_predictor"].arguments["input_shape"] == ShapeSpec(channels=64)
    assert arguments["mask_head"].arguments["input_shape"] == ShapeSpec(channels=64, height=7, width=7)


def test_head_that_does_not_accept_input_shape_gets_none():
    class CustomHead(nn.Module):
        def __init__(self, *, width):
            super().__init__()
            self.linear = nn.Linear(8, width)

        def forward(self, x):
            return self.linear(x.mean(dim=(2, 3)))

    part = partial(
        Holder,
        box_in_features=["p2"],
        box_pooler=pooler(7),
        box_head=partial(CustomHead, width=3),
        box_predictor=partial(Holder),
    )
    arguments = build_roi_heads(part, SHAPES).arguments
    assert arguments["box_predictor"].arguments["input_shape"] == ShapeSpec(channels=3)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_measuring_a_head_does_not_change_its_statistics(device):
    head = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2), nn.BatchNorm2d(6)).to(device)
    assert measure_output_shape(head, POOLED) == ShapeSpec(channels=6, height=3, width=3)
    assert head.training
    if device == "cpu":
        assert head[1].num_batches_tracked == 0
    assert measure_output_shape(nn.Flatten(), POOLED) == ShapeSpec(channels=8 * 49)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["p2", "p7"], r"\['p7'\]"), (["p2", "res5"], "equal channels"), ([], "needs the names")],
)
def test_errors_name_the_feature_maps_that_do_not_fit(names, message):
    with pytest.raises(ValueError, match=message):
        shared_channels(SHAPES, names, "RPN")
    assert shared_channels(SHAPES, ["p3", "p2"], "RPN") == 8
