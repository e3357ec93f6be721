import pytest
import torch

from hydet.modeling import (
    RPN,
    RRPN,
    Box2BoxTransform,
    Box2BoxTransformRotated,
    DefaultAnchorGenerator,
    Matcher,
    RotatedAnchorGenerator,
    StandardRPNHead,
)
from hydet.structures import Boxes, ImageList, Instances, RotatedBoxes

SIZES = [(64, 96), (64, 80)]


def make(rotated=False, **kwargs):
    common = {"sizes": [[16], [32]], "aspect_ratios": [[0.5, 1.0, 2.0]], "strides": [8, 16], "offset": 0.5}
    if rotated:
        anchors = RotatedAnchorGenerator(**common, angles=[[0.0, 45.0]])
        coder = Box2BoxTransformRotated(weights=(1.0,) * 5)
    else:
        anchors, coder = DefaultAnchorGenerator(**common), Box2BoxTransform(weights=(1.0,) * 4)
    settings = {
        "in_features": ["p3", "p4"],
        "head": StandardRPNHead(in_channels=8, num_anchors=anchors.num_anchors[0], box_dim=anchors.box_dim),
        "anchor_generator": anchors,
        "anchor_matcher": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": coder,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "pre_nms_topk": (100, 50),
        "post_nms_topk": (40, 20),
    }
    torch.manual_seed(0)
    return (RRPN if rotated else RPN)(**(settings | kwargs))


def batch(images=2):
    torch.manual_seed(1)
    features = {"p3": torch.randn(images, 8, 8, 12), "p4": torch.randn(images, 8, 4, 6)}
    return ImageList(torch.zeros(images, 3, 64, 96), SIZES[:images]), features


def targets(counts=(2, 3), rotated=False):
    output = []
    for size, count in zip(SIZES, counts, strict=True):
        xy = 20 + 30 * torch.rand(count, 2)
        if rotated:
            boxes = RotatedBoxes(
                torch.cat([xy, 10 + 20 * torch.rand(count, 2), 90 * torch.rand(count, 1)], 1)
            )
        else:
            boxes = Boxes(torch.cat([xy - 12, xy + 4 + 10 * torch.rand(count, 2)], 1))
        output.append(Instances(size, gt_boxes=boxes, gt_classes=torch.zeros(count, dtype=torch.int64)))
    return output


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_losses_depend_on_ground_truth_and_not_on_the_mode(rotated, training):
    rpn = make(rotated).train(training)
    proposals, losses = rpn(*batch())
    assert losses == {}
    assert len(proposals) == 2
    assert all(len(p) <= (40 if training else 20) for p in proposals)
    assert not proposals[0].proposal_boxes.tensor.requires_grad
    _, losses = rpn(*batch(), targets(rotated=rotated))
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in rpn.parameters())


@pytest.mark.parametrize(("rotated", "kind"), [(False, "smooth_l1"), (False, "giou"), (True, "smooth_l1")])
@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_losses_without_objects_are_finite_and_connected(rotated, kind, counts):
    rpn = make(rotated, box_reg_loss_type=kind)
    _, losses = rpn(*batch(), targets(counts, rotated))
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rpn.parameters())


def test_losses_of_a_batch_without_images_are_connected():
    rpn = make()
    images, features = batch(0)
    proposals, losses = rpn(images, features, [])
    assert proposals == []
    sum(losses.values()).backward()
    assert sum(losses.values()).item() == 0


def test_loss_weight_is_one_factor_or_one_per_loss():
    def losses(**kwargs):
        torch.manual_seed(2)
        return make(batch_size_per_image=1000, positive_fraction=1.0, **kwargs)(*batch(), gt)[1]

    gt = targets()
    plain, scaled = losses(), losses(loss_weight=3)
    partly = losses(loss_weight={"loss_rpn_loc": 2.0})
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], 3 * value)
        torch.testing.assert_close(partly[name], value * (2 if name == "loss_rpn_loc" else 1))


def test_number_of_sampled_anchors_is_limited():
    rpn, (_, features) = make(batch_size_per_image=20), batch()
    anchors = rpn.anchor_generator(list(features.values()))
    labels, boxes = rpn.label_and_sample_anchors(anchors, targets((4, 0)))
    total = sum(len(a) for a in anchors)
    assert [x.shape for x in labels] == [(total,)] * 2
    assert 0 < (labels[0] == 1).sum() <= 10
    assert [int((x >= 0).sum()) for x in labels] == [20, 20]
    assert (labels[1] == 1).sum() == 0
    assert (boxes[1] == 0).all()


def test_anchors_beyond_the_border_get_no_loss():
    rpn, (_, features) = make(anchor_boundary_thresh=0, batch_size_per_image=1000), batch()
    anchors = rpn.anchor_generator(list(features.values()))
    labels, _ = rpn.label_and_sample_anchors(anchors, targets())
    inside = Boxes.cat(anchors).inside_box(SIZES[1])
    assert (labels[1][~inside] == -1).all()
    assert (labels[1][inside] >= 0).any()


def test_non_finite_features_raise_in_training_only():
    rpn, (images, features) = make(), batch()
    features["p3"][1, :, 3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match="image 1"):
        rpn(images, features)
    proposals, _ = rpn.eval()(images, features)
    assert all(p.proposal_boxes.tensor.isfinite().all() for p in proposals)
    assert all(len(p) > 0 for p in proposals)


def test_images_of_a_batch_are_independent():
    rpn, (images, features) = make().eval(), batch()
    together, _ = rpn(images, features)
    alone, _ = rpn(
        ImageList(images.tensor[1:], SIZES[1:]), {name: value[1:] for name, value in features.items()}
    )
    torch.testing.assert_close(together[1].proposal_boxes.tensor, alone[0].proposal_boxes.tensor)


def test_losses_and_proposals_are_float32_under_autocast():
    rpn, (images, features) = make(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        proposals, losses = rpn(images, features, targets())
    assert proposals[0].objectness_logits.dtype == torch.float32
    assert all(v.dtype == torch.float32 for v in losses.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positive_fraction": 1.5}, "positive_fraction"),
        ({"batch_size_per_image": 0}, "batch_size_per_image"),
        ({"pre_nms_topk": (100,)}, "pre_nms_topk"),
        ({"head": StandardRPNHead(in_channels=8, num_anchors=5)}, "5 anchors"),
        ({"head": StandardRPNHead(in_channels=8, num_anchors=3, box_dim=5)}, "box_dim"),
    ],
)
def test_invalid_arguments_raise(wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)


def test_missing_feature_maps_raise():
    with pytest.raises(ValueError, match="'p9'"):
        make(in_features=["p3", "p9"])(*batch())


def test_different_numbers_of_anchors_per_level_raise():
    anchors = DefaultAnchorGenerator(sizes=[[16], [32, 64]], aspect_ratios=[[1.0, 2.0, 3.0]], strides=[8, 16])
    with pytest.raises(ValueError, match="equally many anchors"):
        make(anchor_generator=anchors)


def test_custom_heads_may_leave_their_sizes_undeclared():
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = StandardRPNHead(in_channels=8, num_anchors=3)

        def forward(self, features):
            return self.inner(features)

    proposals, _ = make(head=Head())(*batch())
    assert len(proposals) == 2
