import pytest
import torch

from hydet.modeling.padded import PaddedRegions
from hydet.structures import Instances


def run(heads, scene, targets=True):
    return heads(scene.images, scene.features, scene.proposals, scene.targets if targets else None)


@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0), (1,)])
def test_losses_are_finite_and_reach_every_parameter(make, counts):
    heads = make.cascade_heads(**make.mask_parts(), **make.keypoint_parts())
    scene = make.scene(counts)
    _, losses = run(heads, scene)
    stages = {f"{name}_stage{k}" for name in ("loss_cls", "loss_box_reg") for k in range(3)}
    assert set(losses) == stages | {"loss_mask", "loss_keypoint"}
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


@torch.no_grad()
def test_mode_changes_neither_losses_nor_detections(make):
    heads, scene = make.cascade_heads(batch_size_per_image=500, positive_fraction=1.0), make.scene()
    first, second = (run(heads.train(mode), scene)[1] for mode in (True, False))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
    first, second = (run(heads.train(mode), scene, targets=False)[0] for mode in (True, False))
    torch.testing.assert_close(first[0].scores, second[0].scores)


@torch.no_grad()
def test_one_stage_matches_standard_roi_heads(make):
    cascade, scene = make.cascade_heads(thresholds=(0.5,)), make.scene()
    standard = make.standard_heads(box={"cls_agnostic_bbox_reg": True})
    standard.load_state_dict(
        {k.replace("box_head.0", "box_head").replace("predictor.0", "predictor"): v for k, v in cascade.state_dict().items()}
    )  # fmt: skip
    for a, b in zip(run(cascade, scene, False)[0], run(standard, scene, False)[0], strict=True):
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores)


def test_empty_boxes_are_dropped_in_training_only(make):
    heads, scene = make.cascade_heads(), make.scene((2, 2))
    for predictor in heads.box_predictor:
        torch.nn.init.constant_(predictor.bbox_pred.bias, -1e4)  # moves all boxes out of the image
    _, losses = run(heads, scene)
    assert all(v.isfinite() for v in losses.values())
    assert losses["loss_cls_stage1"] == 0  # no box is left
    detections, _ = run(heads, scene, targets=False)
    assert all(len(f) > 0 for f in detections)


def test_boxes_that_a_later_matcher_ignores_are_dropped(make):
    matchers = [make.matcher(), make.matcher(0.3, 0.6, labels=(0, -1, 1))]
    heads = make.cascade_heads(thresholds=(0.5, 0.6), proposal_matchers=matchers)
    scene = make.scene()
    _, losses = run(heads, scene)
    assert all(v.isfinite() for v in losses.values())
    refined = [Instances(p.image_size, proposal_boxes=p.proposal_boxes) for p in scene.proposals]
    for labeled in heads._match_and_label_boxes(refined, 1, scene.targets):
        assert (labeled.gt_classes >= 0).all() and len(labeled) > 0


def test_gradient_of_features_is_divided_by_the_number_of_stages(make):
    heads, scene = make.cascade_heads(batch_size_per_image=500, positive_fraction=1.0), make.scene()
    _, losses = run(heads, scene)
    shared = torch.autograd.grad(losses["loss_cls_stage0"], scene.features["p2"], retain_graph=True)[0]
    weights = heads.box_head[0].fc1.weight
    head_gradient = torch.autograd.grad(losses["loss_cls_stage0"], weights)[0]

    alone = make.cascade_heads(thresholds=(0.5,), batch_size_per_image=500, positive_fraction=1.0)
    alone.load_state_dict({k: v for k, v in heads.state_dict().items() if k in alone.state_dict()})
    loss = run(alone, scene)[1]["loss_cls_stage0"]
    torch.testing.assert_close(
        shared * 3, torch.autograd.grad(loss, scene.features["p2"], retain_graph=True)[0]
    )
    torch.testing.assert_close(head_gradient, torch.autograd.grad(loss, alone.box_head[0].fc1.weight)[0])


def test_invalid_arguments_raise(make):
    with pytest.raises(ValueError, match="proposal_matchers"):
        make.cascade_heads(proposal_matcher=make.matcher())
    with pytest.raises(ValueError, match="each stage"):
        make.cascade_heads(box_heads=[make.box_head()])
    with pytest.raises(ValueError, match="cls_agnostic"):
        make.cascade_heads(box_predictors=[make.predictor() for _ in range(3)])
    with pytest.raises(ValueError, match="train_on_pred_boxes"):
        make.cascade_heads(train_on_pred_boxes=True)


@torch.no_grad()
def test_last_stage_may_predict_one_box_per_class(make):
    predictors = [make.predictor(cls_agnostic_bbox_reg=True), make.predictor()]
    heads, scene = make.cascade_heads(thresholds=(0.5, 0.6), box_predictors=predictors), make.scene()
    run(heads, scene)
    assert all(len(f) > 0 for f in run(heads, scene, targets=False)[0])


def test_detection_limits_are_those_of_the_last_stage(make):
    predictors = [
        make.predictor(cls_agnostic_bbox_reg=True, test_topk_per_image=topk, test_nms_thresh=0.4)
        for topk in (100, 7)
    ]
    heads = make.cascade_heads(thresholds=(0.5, 0.6), box_predictors=predictors)
    assert heads.detection_limits == (0.4, 7)


@torch.no_grad()
def test_logits_are_averaged_on_request(make):
    heads, scene = make.cascade_heads(average_logits=True), make.scene((2,))
    for k, predictor in enumerate(heads.box_predictor):
        predictor.test_topk_per_image, predictor.test_nms_thresh = -1, 1.0
        torch.nn.init.zeros_(predictor.cls_score.weight)
        predictor.cls_score.bias.copy_(torch.tensor([3.0, 0, 0, 0]) if k == 0 else torch.zeros(4))
    (result,), _ = run(heads, scene, False)
    expected = torch.tensor([1.0, 0, 0, 0]).softmax(dim=0)
    torch.testing.assert_close(result.scores[result.pred_classes == 0][0], expected[0])
    regions = PaddedRegions(
        scene.proposals[0].proposal_boxes.tensor[None], torch.tensor([len(scene.proposals[0])])
    )
    padded = heads.detect_padded(scene.features, regions, scene.images.image_sizes)
    torch.testing.assert_close(padded.scores[0, : len(result)], result.scores)
    heads.average_logits = False
    (result,), _ = run(heads, scene, False)
    probabilities = torch.stack([torch.tensor([x, 0, 0, 0.0]).softmax(dim=0) for x in (3.0, 0, 0)])
    torch.testing.assert_close(result.scores[result.pred_classes == 0][0], probabilities.mean(dim=0)[0])
