import pytest
import torch


def run(heads, scene, targets=True):
    return heads(scene.images, scene.features, scene.proposals, scene.targets if targets else None)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0)])
def test_losses_are_finite_and_reach_every_parameter(make, counts, mask):
    heads, scene = make.res5_heads(mask=mask), make.scene(counts)
    _, losses = run(heads, scene)
    assert set(losses) == {"loss_cls", "loss_box_reg"} | ({"loss_mask"} if mask else set())
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    assert scene.features["p3"].grad is not None


@torch.no_grad()
def test_masks_come_from_the_detected_boxes(make):
    heads, scene = make.res5_heads(), make.scene()
    detections, losses = run(heads, scene, targets=False)
    assert losses == {} and detections[0].pred_masks.shape[1:] == (1, 8, 8)
    again = heads.forward_with_given_boxes(scene.features, detections)
    for a, b in zip(again, detections, strict=True):
        torch.testing.assert_close(a.pred_masks, b.pred_masks)


@torch.no_grad()
def test_no_proposals_give_no_detections(make):
    heads, scene = make.res5_heads(), make.scene((0, 0))
    scene.proposals = [p[:0] for p in scene.proposals]
    assert [len(f) for f in run(heads, scene, targets=False)[0]] == [0, 0]
    assert all(v == 0 for v in run(heads, scene)[1].values())


def test_different_number_of_classes_raises(make):
    with pytest.raises(ValueError, match="7 classes"):
        make.res5_heads(box_predictor=make.predictor(num_classes=7))


@torch.no_grad()
def test_detect_boxes_skips_masks(make):
    heads, scene = make.res5_heads(), make.scene()
    (boxes, _), (detections, _) = (
        heads.detect_boxes(scene.images, scene.features, scene.proposals),
        run(heads, scene, targets=False)[0],
    )
    assert not boxes.has("pred_masks") and detections.has("pred_masks")
    torch.testing.assert_close(boxes.scores, detections.scores)
    assert heads.detection_limits == (0.5, 100)
