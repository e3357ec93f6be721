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
def test_box_loss_without_foreground_is_a_connected_zero(make, kind, sigmoid, classes):
    module = make.predictor(box_reg_loss_type=kind, use_sigmoid_ce=sigmoid)
    proposals = matched(make, len(classes), classes=classes)
    proposals.gt_classes = proposals.gt_classes.long()
    proposals.remove("gt_boxes")
    losses = module.losses(module(torch.randn(len(classes), 16)), [proposals])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_an_empty_batch_gives_connected_zero_losses_and_no_detections(make):
    module = make.predictor()
    predictions = module(torch.zeros(0, 16))
    assert all(v == 0 and v.requires_grad for v in module.losses(predictions, []).values())
    assert module.predict_boxes(predictions, []) == []
    assert module.predict_boxes_for_gt_classes(predictions, []) == []
    assert module.inference(predictions, []) == ([], [])


def test_losses_do_not_depend_on_proposal_order_or_mode(make):
    module, proposals, x = make.predictor(), matched(make, 10), torch.randn(10, 16)
    order = torch.randperm(10)
    first = module.train().losses(module(x), [proposals])
    second = module.eval().losses(module(x[order]), [proposals[order]])
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_a_single_class_trains_and_detects(make):
    module = make.predictor(num_classes=1)
    proposals = matched(make, 6, classes=[0, 1, 0, 1, 1, 0])
    losses = module.losses(module(torch.randn(6, 16)), [proposals])
    assert all(v.isfinite() for v in losses.values())
    detections, _ = module.inference(module(torch.randn(6, 16)), [proposals])
    assert (detections[0].pred_classes == 0).all()


def test_box_loss_trains_the_ground_truth_class_only(make):
    module = make.predictor()
    proposals = matched(make, 4, classes=[1, 1, 3, 1])
    scores, deltas = (t.detach().requires_grad_() for t in module(torch.randn(4, 16)))
    module.losses((scores, deltas), [proposals])["loss_box_reg"].backward()
    touched = deltas.grad.view(4, 3, 4).abs().sum(dim=2) > 0
    assert touched.tolist() == [[False, True, False]] * 2 + [[False] * 3] + [[False, True, False]]


def test_loss_weight_is_one_factor_or_one_per_loss(make):
    proposals, x = [matched(make)], torch.randn(8, 16)
    plain = make.predictor()
    for weight, factors in ((2, (2, 2)), ({"loss_box_reg": 3.0}, (1, 3))):
        module = make.predictor(loss_weight=weight)
        module.load_state_dict(plain.state_dict())
        expected, losses = plain.losses(plain(x), proposals), module.losses(module(x), proposals)
        for name, factor in zip(("loss_cls", "loss_box_reg"), factors, strict=True):
            torch.testing.assert_close(losses[name], expected[name] * factor)


def test_losses_of_half_precision_predictions_are_float32(make):
    module, proposals = make.predictor(), [matched(make)]
    scores, deltas = module(torch.randn(8, 16))
    exact = module.losses((scores, deltas), proposals)
    rounded = module.losses((scores.bfloat16(), deltas.bfloat16()), proposals)
    assert all(v.dtype == torch.float32 for v in rounded.values())
    for name, value in exact.items():
        torch.testing.assert_close(rounded[name], value, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("agnostic", [False, True])
def test_zero_deltas_decode_to_the_proposals(make, agnostic):
    module = make.predictor(cls_agnostic_bbox_reg=agnostic)
    proposals = [matched(make, 4), matched(make, 0), matched(make, 2)]
    predictions = (torch.zeros(6, 4), torch.zeros(6, 4 if agnostic else 12))
    for boxes, chosen, p in zip(
        module.predict_boxes(predictions, proposals),
        module.predict_boxes_for_gt_classes(predictions, proposals),
        proposals,
        strict=True,
    ):
        proposal_boxes = p.proposal_boxes.tensor
        torch.testing.assert_close(boxes, proposal_boxes.repeat(1, 1 if agnostic else 3))
        torch.testing.assert_close(chosen, proposal_boxes)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_probabilities_are_softmax_or_sigmoid_outputs(make, sigmoid):
    module = make.predictor(use_sigmoid_ce=sigmoid)
    scores, deltas = module(torch.randn(8, 16))
    (probabilities,) = module.predict_probs((scores, deltas), [matched(make)])
    assert probabilities.shape == (8, 4) and ((probabilities > 0) & (probabilities < 1)).all()
    assert sigmoid or torch.allclose(probabilities.sum(dim=1), torch.ones(8))


def federated(make, weights, num_scored):
    return make.predictor(
        num_classes=len(weights),
        use_sigmoid_ce=True,
        use_fed_loss=True,
        get_fed_loss_cls_weights=lambda: torch.tensor(weights),
        fed_loss_num_classes=num_scored,
    )


def test_federated_loss_trains_present_and_sampled_classes_only(make):
    module = federated(make, [1.0, 0.0, 0.0, 1.0, 0.0], num_scored=4)
    # Class 1 and background occur; classes 0 and 3 are sampled.
    proposals = matched(make, 3, classes=[1, 5, 1], num_classes=5)
    scores, deltas = (t.detach().requires_grad_() for t in module(torch.randn(3, 16)))
    module.losses((scores, deltas), [proposals])["loss_cls"].backward()
    assert (scores.grad.abs().sum(dim=0) > 0).tolist() == [True, True, False, True, False, False]
    assert "fed_loss_cls_weights" in module.state_dict()


def test_federated_classes_are_distinct_and_limited_by_positive_weights(make):
    module = federated(make, [1.0, 0.5, 0.0, 2.0], num_scored=4)
    classes = module.get_fed_loss_classes(torch.tensor([0, 0, 4]), 10, 4, module.fed_loss_cls_weights)
    assert sorted(classes.tolist()) == [0, 1, 3, 4]
    classes = module.get_fed_loss_classes(torch.tensor([2]), 1, 4, module.fed_loss_cls_weights)
    assert classes.tolist() == [2]


def test_spatial_features_are_flattened():
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
def test_invalid_arguments_raise(options):
    settings = {
        "input_shape": ShapeSpec(channels=4),
        "box2box_transform": Box2BoxTransform(weights=(1, 1, 1, 1)),
        "num_classes": 3,
    }
    with pytest.raises(ValueError):
        FastRCNNOutputLayers(**(settings | options))
