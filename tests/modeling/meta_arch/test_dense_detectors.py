import copy

import pytest
import torch
from torch import nn

from hydet.layers import ShapeSpec
from hydet.modeling import (
    FCOS,
    Backbone,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    FCOSHead,
    Matcher,
    RetinaNet,
    RetinaNetHead,
)
from hydet.structures import Boxes, Instances

CLASSES = 3
SHAPES = [ShapeSpec(channels=8)] * 2
PIXELS = {"pixel_mean": [100.0, 110.0, 120.0], "pixel_std": [50.0, 50.0, 50.0]}


class TinyBackbone(Backbone):
    """Two levels from two strided convolutions; counts its passes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 2, stride=2)
        self.passes = 0

    size_divisibility = 16

    def output_shape(self):
        return {"p4": ShapeSpec(channels=8, stride=16), "p3": ShapeSpec(channels=8, stride=8)}

    def forward(self, x):
        self.passes += 1
        p3 = self.first(x).relu()
        return {"p3": p3, "p4": self.second(p3).relu()}


def retinanet(norm="", **kwargs):
    torch.manual_seed(0)
    settings = dict(
        backbone=TinyBackbone(),
        head=RetinaNetHead(input_shape=SHAPES, num_classes=CLASSES, num_anchors=3, conv_dims=[8], norm=norm),
        head_in_features=["p3", "p4"],
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[16], [32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16]
        ),
        box2box_transform=Box2BoxTransform(weights=(1.0,) * 4),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=CLASSES,
        test_score_thresh=0.005,
        **PIXELS,
    )
    return RetinaNet(**(settings | kwargs))


def fcos(**kwargs):
    torch.manual_seed(0)
    settings = dict(
        backbone=TinyBackbone(),
        head=FCOSHead(input_shape=SHAPES, num_classes=CLASSES, conv_dims=[8]),
        num_classes=CLASSES,
        test_score_thresh=0.05,
        **PIXELS,
    )
    return FCOS(**(settings | kwargs))


MODELS = [retinanet, fcos]


def inputs(counts=(2, 1), sizes=((64, 96), (48, 64))):
    torch.manual_seed(1)
    batch = []
    for (height, width), count in zip(sizes, counts, strict=True):
        corner = torch.rand(count, 2) * torch.tensor([width - 40, height - 40])
        truth = Instances(
            (height, width),
            gt_boxes=Boxes(torch.cat([corner, corner + 12 + 26 * torch.rand(count, 2)], dim=1)),
            gt_classes=torch.randint(0, CLASSES, (count,)),
        )
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        batch.append({"image": image, "instances": truth, "height": 2 * height, "width": width})
    return batch


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_losses_and_results_in_any_mode_from_one_pass(make, training):
    model = make().train(training)
    other = copy.deepcopy(model)
    losses, results = model.losses_and_inference(inputs())
    assert model.backbone.passes == 1
    for name, value in other.compute_losses(inputs()).items():
        torch.testing.assert_close(losses[name], value)
    for found, wanted in zip(results, other.inference(inputs()), strict=True):
        assert len(found["instances"]) > 0
        torch.testing.assert_close(found["instances"].scores, wanted["instances"].scores)
        torch.testing.assert_close(
            found["instances"].pred_boxes.tensor, wanted["instances"].pred_boxes.tensor
        )


@pytest.mark.parametrize("make", MODELS)
def test_forward_follows_the_mode(make):
    model = make()
    assert all(name.startswith("loss_") for name in model(inputs()))
    results = model.eval()(inputs())
    assert results[0]["instances"].image_size == (128, 96)
    raw = model.inference(inputs(), do_postprocess=False)
    assert raw[0].image_size == (64, 96)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (3, 500)])
def test_any_number_of_objects_gives_finite_connected_losses(make, counts):
    model = make()
    losses = model(inputs(counts))
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


KINDS = [(retinanet, {"box_reg_loss_type": kind}) for kind in ("smooth_l1", "giou", "diou", "ciou")]


@pytest.mark.parametrize(("make", "settings"), [*KINDS, (fcos, {})])
def test_tiny_and_degenerate_objects(make, settings):
    batch = inputs((2, 0))
    batch[0]["instances"].gt_boxes = Boxes([[10.0, 10, 11, 11], [30, 30, 30.5, 60]])
    losses = make(**settings)(batch)
    assert all(v.isfinite() for v in losses.values())


@pytest.mark.parametrize("make", MODELS)
def test_normalizer_moves_in_training_only_and_stays_out_of_the_state_dict(make):
    model = make()
    start = float(model.loss_normalizer)
    assert start == (100 if make is retinanet else 300)
    model.eval().compute_losses(inputs())
    assert float(model.loss_normalizer) == start
    model.train().compute_losses(inputs((0, 0)))
    assert float(model.loss_normalizer) == pytest.approx(0.9 * start + 0.1)
    assert not any("normalizer" in name for name in model.state_dict())
    fresh = make()
    fresh.load_training_state(model.training_state())
    assert float(fresh.loss_normalizer) == float(model.loss_normalizer)
    assert model.half().loss_normalizer.dtype == torch.float32


@pytest.mark.parametrize("make", MODELS)
def test_two_losses_before_one_backward(make):
    model = make()
    total = sum(model(inputs()).values()) + sum(model(inputs((1, 1))).values())
    total.backward()


@pytest.mark.parametrize("make", MODELS)
def test_leaving_the_meta_device(make):
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    assert float(model.loss_normalizer) == make().initial_loss_normalizer


@pytest.mark.parametrize("make", MODELS)
def test_one_image_by_itself_is_the_same(make):
    model = make().eval()
    alone = model.inference(inputs()[1:], do_postprocess=False)[0]
    images = model.preprocess_image(inputs()[1:])
    features = [model.backbone(images.tensor)[name] for name in model.head_in_features]
    predictions = model.head(features)
    flat = [
        [x[0].unflatten(0, (-1, v)).permute(2, 3, 0, 1).flatten(0, 2) for x in levels]
        for levels, v in zip(predictions, (CLASSES, 4, 1), strict=False)
    ]
    scores = [x.sigmoid() for x in flat[0]]
    if make is fcos:
        scores = [(s * c.sigmoid()).sqrt() for s, c in zip(scores, flat[2], strict=True)]
    found = model.inference_single_image(
        model.anchor_generator(features), scores, flat[1], images.image_sizes[0]
    )
    torch.testing.assert_close(found.scores, alone.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, alone.pred_boxes.tensor)
    assert torch.equal(found.pred_classes, alone.pred_classes)


@pytest.mark.parametrize("make", MODELS)
def test_limits_of_inference(make):
    batch = inputs()
    everything = make(test_topk_candidates=10**6, max_detections_per_image=-1).eval()
    found = everything.inference(batch, do_postprocess=False)
    assert all((x.scores.diff() <= 0).all() for x in found)
    few = make(max_detections_per_image=3).eval().inference(batch, do_postprocess=False)
    assert [len(x) for x in few] == [3, 3]
    for a, b in zip(few, found, strict=True):
        torch.testing.assert_close(a.scores, b.scores[:3])
    none = make(test_score_thresh=1.0).eval().inference(batch)
    assert [len(x["instances"]) for x in none] == [0, 0]


@pytest.mark.parametrize("make", MODELS)
def test_non_finite_predictions_are_dropped(make):
    model = make().eval()
    with torch.no_grad():
        model.head.bbox_pred.bias[0] = float("nan")
    assert all(x["instances"].pred_boxes.tensor.isfinite().all() for x in model.inference(inputs()))


def test_levels_in_any_order_are_sorted_by_stride():
    assert fcos().head_in_features == ["p3", "p4"]


def test_smallest_object_wins_a_location():
    model = fcos(center_sampling_radius=100)
    anchors = model.anchor_generator([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)])
    truth = Instances(
        (64, 64),
        gt_boxes=Boxes([[0.0, 0.0, 62.0, 30.0], [0.0, 0.0, 62.0, 29.9]]),
        gt_classes=torch.tensor([0, 1]),
    )
    labels, boxes = model.label_anchors(anchors, [truth])
    taken = labels[0] != CLASSES
    assert taken.any()
    assert (labels[0][taken] == 1).all()  # areas differ by 6 square pixels
    assert (boxes[0][~taken] == 0).all()


def test_centerness_is_one_in_the_middle():
    model = fcos()
    anchors = [Boxes([[4.0, 4, 12, 12], [0, 4, 8, 12], [40, 40, 48, 48]])]
    matched = torch.tensor([[0.0, 0, 16, 16]]).expand(3, 4)
    targets = model.compute_ctrness_targets(anchors, [matched])
    assert targets[0].tolist() == pytest.approx([1.0, (4 / 12) ** 0.5, 0.0])


@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN"])
def test_norms_of_the_head(norm):
    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=32)] * 2, num_classes=2, num_anchors=1, conv_dims=[32], norm=norm
    )
    logits, _ = head([torch.randn(2, 32, 8, 8), 5 + torch.randn(2, 32, 4, 4)])
    assert [x.shape for x in logits] == [(2, 2, 8, 8), (2, 2, 4, 4)]
    if norm == "BN":
        means = [head.state_dict()[f"cls_subnet.1.{i}.running_mean"] for i in range(2)]
        assert not torch.equal(*means)
        assert "cls_subnet.1.weight" in head.state_dict()


@pytest.mark.parametrize("make", MODELS)
def test_pictures(make):
    pictures = []
    model = make(vis_period=2, input_format="BGR")
    model(inputs())
    model.on_picture = lambda name, picture: pictures.append(picture)
    model(inputs())
    model(inputs())
    assert len(pictures) == 1
    assert pictures[0].dtype == torch.uint8
    assert pictures[0].shape[0] == 3


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (retinanet, {"num_classes": 5}, "num_classes=5"),
        (retinanet, {"head_in_features": ["p3", "p7"]}, "'p7'"),
        (
            retinanet,
            {"anchor_generator": DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[8, 16])},
            "3 anchors",
        ),
        (fcos, {"num_classes": 5}, "num_classes=5"),
    ],
)
def test_parts_that_do_not_fit(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)


def test_bad_heads():
    with pytest.raises(ValueError, match="equal channels"):
        RetinaNetHead(
            input_shape=[ShapeSpec(channels=8), ShapeSpec(channels=16)],
            num_classes=2, num_anchors=1, conv_dims=[8],
        )  # fmt: skip
    with pytest.raises(ValueError, match="prior_prob"):
        RetinaNetHead(input_shape=SHAPES, num_classes=2, num_anchors=1, conv_dims=[8], prior_prob=0.0)
    with pytest.raises(ValueError, match="2 levels"):
        RetinaNetHead(input_shape=SHAPES, num_classes=2, num_anchors=1, conv_dims=[8])(
            [torch.zeros(1, 8, 4, 4)]
        )


def test_losses_need_ground_truth():
    with pytest.raises(ValueError, match="instances"):
        retinanet().compute_losses([{"image": torch.zeros(3, 32, 32)}])
