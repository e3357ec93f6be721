import pytest
import torch
from torch import nn

from hydet.structures import Boxes, Instances

LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_keypoint"}


def full_heads(make, **options):
    return make.standard_heads(**make.mask_parts(), **make.keypoint_parts(), **options)


def run(heads, scene, targets=True):
    return heads(scene.images, scene.features, scene.proposals, scene.targets if targets else None)


def assert_connected(heads, scene, losses):
    assert all(v.isfinite() for v in losses.values()), losses
    sum(losses.values()).backward()
    missing = [name for name, p in heads.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in heads.parameters())
    assert all(f.grad is not None and f.grad.isfinite().all() for f in scene.features.values())


@pytest.mark.parametrize("counts", [(3, 2), (0, 3), (0, 0), (1,)])
def test_losses_are_finite_and_reach_every_parameter(make, counts):
    heads, scene = full_heads(make), make.scene(counts)
    sampled, losses = run(heads, scene)
    assert set(losses) == LOSSES and len(sampled) == len(counts)
    assert_connected(heads, scene, losses)
    if sum(counts) == 0:
        assert losses["loss_box_reg"] == losses["loss_mask"] == losses["loss_keypoint"] == 0


def test_no_proposals_and_no_ground_truth_give_finite_losses_and_no_detections(make):
    heads, scene = full_heads(make), make.scene((0, 0))
    scene.proposals = [p[:0] for p in scene.proposals]
    _, losses = run(heads, scene)
    assert_connected(heads, scene, losses)
    assert all(v == 0 for v in losses.values())
    detections, _ = run(heads, scene, targets=False)
    assert [len(f) for f in detections] == [0, 0]
    assert all(f.pred_masks.shape[0] == f.pred_keypoints.shape[0] == 0 for f in detections)


def test_mode_changes_neither_losses_nor_detections(make):
    # All proposals are sampled, so that the result is deterministic.
    heads, scene = full_heads(make, batch_size_per_image=500, positive_fraction=1.0), make.scene()
    trained, evaluated = ((run(heads.train(mode), scene)[1]) for mode in (True, False))
    for name, value in trained.items():
        torch.testing.assert_close(value, evaluated[name])
    with torch.no_grad():
        first, second = (run(heads.train(mode), scene, targets=False)[0] for mode in (True, False))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.pred_masks, b.pred_masks)


def test_inputs_do_not_change(make):
    heads, scene = full_heads(make, train_on_pred_boxes=True), make.scene()
    before = [p.proposal_boxes.tensor.clone() for p in scene.proposals]
    run(heads, scene)
    detections, _ = run(heads, scene, targets=False)
    known = [
        Instances(f.image_size, pred_boxes=f.pred_boxes, pred_classes=f.pred_classes) for f in detections
    ]
    heads.forward_with_given_boxes(scene.features, known)
    for p, boxes in zip(scene.proposals, before, strict=True):
        assert set(p.get_fields()) == {"proposal_boxes", "objectness_logits"}
        assert torch.equal(p.proposal_boxes.tensor, boxes)
    assert all(set(k.get_fields()) == {"pred_boxes", "pred_classes"} for k in known)


@torch.no_grad()
def test_given_boxes_keep_their_order_and_match_detection(make):
    heads, scene = full_heads(make), make.scene()
    detections, _ = run(heads, scene, targets=False)
    known = [
        Instances(f.image_size, pred_boxes=f.pred_boxes[order], pred_classes=f.pred_classes[order])
        for f in detections
        for order in [torch.arange(len(f)).flip(0)]
    ]
    for given, detected in zip(
        heads.forward_with_given_boxes(scene.features, known), detections, strict=True
    ):
        assert not given.has("scores")
        torch.testing.assert_close(given.pred_masks.flip(0), detected.pred_masks)
        torch.testing.assert_close(given.pred_keypoints.flip(0), detected.pred_keypoints)


def test_given_boxes_without_classes_raise(make):
    heads, scene = full_heads(make), make.scene()
    known = [Instances((64, 80), pred_boxes=Boxes(torch.rand(2, 4)))] * 2
    with pytest.raises(ValueError, match="pred_classes"):
        heads.forward_with_given_boxes(scene.features, known)


@torch.no_grad()
def test_images_of_a_batch_are_independent(make):
    heads, scene = full_heads(make), make.scene()
    together, _ = run(heads, scene, targets=False)
    for i, detections in enumerate(together):
        features = {name: f[i : i + 1] for name, f in scene.features.items()}
        (alone,), _ = heads(scene.images, features, scene.proposals[i : i + 1])
        torch.testing.assert_close(alone.pred_boxes.tensor, detections.pred_boxes.tensor)
        torch.testing.assert_close(alone.pred_masks, detections.pred_masks)


def test_head_without_pooler_reads_the_feature_maps(make):
    class Whole(nn.Module):
        def forward(self, x, instances):
            assert set(x) == {"p2"}
            return {"loss_mask": x["p2"].sum() * 0} if instances[0].has("gt_classes") else list(instances)

    heads = make.standard_heads(mask_in_features=["p2"], mask_head=Whole())
    assert "loss_mask" in run(heads, make.scene())[1]
    run(heads, make.scene(), targets=False)


def test_train_on_pred_boxes_detaches_the_boxes(make):
    heads = make.standard_heads(**make.mask_parts(), train_on_pred_boxes=True)
    scene = make.scene()
    sampled, losses = run(heads, scene)
    losses["loss_mask"].backward()
    assert all(p.grad is None for p in heads.box_predictor.parameters())
    assert not sampled[0].proposal_boxes.tensor.requires_grad


def test_a_single_class_trains_and_detects(make):
    heads = make.standard_heads(num_classes=1, **make.mask_parts(num_classes=1))
    scene = make.scene(num_classes=1)
    _, losses = run(heads, scene)
    assert_connected(heads, scene, losses)
    assert all((f.pred_classes == 0).all() for f in run(heads, scene, targets=False)[0])


@pytest.mark.parametrize("part", ["mask_head", "keypoint_in_features"])
def test_incomplete_branch_raises(make, part):
    parts = make.mask_parts() | make.keypoint_parts()
    with pytest.raises(ValueError, match="go together"):
        make.standard_heads(**{part: parts[part]})


def test_different_numbers_of_classes_raise(make):
    with pytest.raises(ValueError, match="box_predictor has 7"):
        make.standard_heads(box_predictor=make.predictor(num_classes=7))
    with pytest.raises(ValueError, match="mask_head has 7"):
        make.standard_heads(**make.mask_parts(num_classes=7))


@torch.no_grad()
def test_detect_boxes_skips_masks_and_keypoints(make):
    heads, scene = full_heads(make), make.scene()
    detections, _ = run(heads, scene, targets=False)
    boxes = heads.detect_boxes(scene.images, scene.features, scene.proposals)
    for everything, boxes_only in zip(detections, boxes, strict=True):
        assert set(boxes_only.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
        torch.testing.assert_close(boxes_only.pred_boxes.tensor, everything.pred_boxes.tensor)
    assert heads.tasks == ("box", "mask", "keypoints")


def test_detection_limits_are_those_of_the_box_predictor(make):
    heads = make.standard_heads(box={"test_nms_thresh": 0.3, "test_topk_per_image": 7})
    assert heads.detection_limits == (0.3, 7)
