import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import Box2BoxTransform, Box2BoxTransformRotated, FastRCNNOutputLayers
from hydet.structures import Boxes, Instances

SIZE = (60, 80)


def matched(make, count=8, *, classes=None, num_classes=3):
    boxes = make.random_boxes(count, SIZE)
    proposals = Instances(SIZE, proposal_boxes=Boxes(boxes + torch.rand_like(boxes)))
    proposals.gt_boxes = Boxes(boxes)
    proposals.gt_classes = (
        torch.randint(num_classes + 1, (count,)) if classes is None else torch.tensor(classes)
    )
    return proposals


LOSSES = ("smooth_l1", "giou", "diou", "ciou")


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("agnostic", [False, True])
def test_losses_are_finite_and_reach_every_parameter(make, kind, agnostic):
    module = make.predictor(box_reg_loss_type=kind, cls_agnostic_bbox_reg=agnostic)
    proposals = [matched(make), matched(make, 5)]
    losses = module.losses(module(torch.randn(13, 16)), proposals)
    sum(losses.values()).backward()
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("classes", [[], [3, 3, 3]])
def test_without_foreground_the_box_loss_is_a_connected_zero(make, kind, sigmoid, classes):
    module = make.predictor(box_reg_loss_type=kind, use_sigmoid_ce=sigmoid)
    proposals = matched(make, len(classes), classes=classes)
    proposals.gt_classes = proposals.gt_classes.long()
    proposals.remove("gt_boxes")
    losses = module.losses(module(torch.randn(len(classes), 16)), [proposals])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_no_images_at_all(make):
    module = make.predictor()
    predictions = module(torch.zeros(0, 16))
    assert all(v == 0 and v.requires_grad for v in module.losses(predictions, []).values())
    assert module.predict_boxes(predictions, []) == []
    assert module.predict_boxes_for_gt_classes(predictions, []) == []
    assert module.inference(predictions, []) == ([], [])


def test_losses_do_not_depend_on_the_order_of_proposals_or_the_mode(make):
    module, proposals, x = make.predictor(), matched(make, 10), torch.randn(10, 16)
    order = torch.randperm(10)
    first = module.train().losses(module(x), [proposals])
    second = module.eval().losses(module(x[order]), [proposals[order]])
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_one_class(make):
    module = make.predictor(num_classes=1)
    proposals = matched(make, 6, classes=[0, 1, 0, 1, 1, 0])
    losses = module.losses(module(torch.randn(6, 16)), [proposals])
    assert all(v.isfinite() for v in losses.values())
    found, _ = module.inference(module(torch.randn(6, 16)), [proposals])
    assert (found[0].pred_classes == 0).all()


def test_only_the_true_class_is_regressed(make):
    module = make.predictor()
    proposals = matched(make, 4, classes=[1, 1, 3, 1])
    scores, deltas = (t.detach().requires_grad_() for t in module(torch.randn(4, 16)))
    module.losses((scores, deltas), [proposals])["loss_box_reg"].backward()
    touched = deltas.grad.view(4, 3, 4).abs().sum(dim=2) > 0
    assert touched.tolist() == [[False, True, False]] * 2 + [[False] * 3] + [[False, True, False]]


def test_a_weight_for_both_losses_or_for_one(make):
    proposals, x = [matched(make)], torch.randn(8, 16)
    plain = make.predictor()
    for weight, factors in ((2, (2, 2)), ({"loss_box_reg": 3.0}, (1, 3))):
        module = make.predictor(loss_weight=weight)
        module.load_state_dict(plain.state_dict())
        expected, found = plain.losses(plain(x), proposals), module.losses(module(x), proposals)
        for name, factor in zip(("loss_cls", "loss_box_reg"), factors, strict=True):
            torch.testing.assert_close(found[name], expected[name] * factor)


def test_losses_are_computed_in_float32_from_half_precision(make):
    module, proposals = make.predictor(), [matched(make)]
    scores, deltas = module(torch.randn(8, 16))
    exact = module.losses((scores, deltas), proposals)
    rounded = module.losses((scores.bfloat16(), deltas.bfloat16()), proposals)
    assert all(v.dtype == torch.float32 for v in rounded.values())
    for name, value in exact.items():
        torch.testing.assert_close(rounded[name], value, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("agnostic", [False, True])
def test_zero_deltas_give_back_the_proposals(make, agnostic):
    module = make.predictor(cls_agnostic_bbox_reg=agnostic)
    proposals = [matched(make, 4), matched(make, 0), matched(make, 2)]
    predictions = (torch.zeros(6, 4), torch.zeros(6, 4 if agnostic else 12))
    for boxes, chosen, p in zip(
        module.predict_boxes(predictions, proposals),
        module.predict_boxes_for_gt_classes(predictions, proposals),
        proposals,
        strict=True,
    ):
        own = p.proposal_boxes.tensor
        torch.testing.assert_close(boxes, own.repeat(1, 1 if agnostic else 3))
        torch.testing.assert_close(chosen, own)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_probabilities(make, sigmoid):
    module = make.predictor(use_sigmoid_ce=sigmoid)
    scores, deltas = module(torch.randn(8, 16))
    (found,) = module.predict_probs((scores, deltas), [matched(make)])
    assert found.shape == (8, 4) and ((found > 0) & (found < 1)).all()
    assert sigmoid or torch.allclose(found.sum(dim=1), torch.ones(8))


def federated(make, weights, kept):
    return make.predictor(
        num_classes=len(weights),
        use_sigmoid_ce=True,
        use_fed_loss=True,
        get_fed_loss_cls_weights=lambda: torch.tensor(weights),
        fed_loss_num_classes=kept,
    )


def test_federated_loss_scores_present_and_drawn_classes_only(make):
    module = federated(make, [1.0, 0.0, 0.0, 1.0, 0.0], kept=4)
    proposals = matched(
        make, 3, classes=[1, 5, 1], num_classes=5
    )  # present: 1 and the background; drawn: 0 and 3
    scores, deltas = (t.detach().requires_grad_() for t in module(torch.randn(3, 16)))
    module.losses((scores, deltas), [proposals])["loss_cls"].backward()
    assert (scores.grad.abs().sum(dim=0) > 0).tolist() == [True, True, False, True, False, False]
    assert "fed_loss_cls_weights" in module.state_dict()


def test_federated_classes_are_distinct_and_as_many_as_can_be_drawn(make):
    module = federated(make, [1.0, 0.5, 0.0, 2.0], kept=4)
    chosen = module.get_fed_loss_classes(torch.tensor([0, 0, 4]), 10, 4, module.fed_loss_cls_weights)
    assert sorted(chosen.tolist()) == [0, 1, 3, 4]
    chosen = module.get_fed_loss_classes(torch.tensor([2]), 1, 4, module.fed_loss_cls_weights)
    assert chosen.tolist() == [2]


def test_features_with_cells_are_flattened():
    module = FastRCNNOutputLayers(
        input_shape=ShapeSpec(channels=4, height=2, width=3),
        box2box_transform=Box2BoxTransform(weights=(1, 1, 1, 1)),
        num_classes=2,
    )
    scores, deltas = module(torch.randn(5, 4, 2, 3))
    assert scores.shape == (5, 3) and deltas.shape == (5, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"box_reg_loss_type": "iou"},
        {"use_fed_loss": True},
        {"use_fed_loss": True, "use_sigmoid_ce": True},
        {"use_fed_loss": True, "use_sigmoid_ce": True, "get_fed_loss_cls_weights": lambda: torch.ones(7)},
        {"input_shape": ShapeSpec()},
        {"box2box_transform": Box2BoxTransformRotated(weights=(1,) * 5), "box_reg_loss_type": "giou"},
    ],
)
def test_wrong_arguments_are_refused(options):
    settings = {
        "input_shape": ShapeSpec(channels=4),
        "box2box_transform": Box2BoxTransform(weights=(1, 1, 1, 1)),
        "num_classes": 3,
    }
    with pytest.raises(ValueError):
        FastRCNNOutputLayers(**(settings | options))
