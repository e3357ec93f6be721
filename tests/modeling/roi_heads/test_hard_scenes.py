"""ROI heads on hard scenes: crowds, tiny and degenerate boxes, batches of one image or of different sizes."""

import pytest
import torch

ARCHITECTURES = ("standard", "cascade", "res5")


def build(make, name):
    extra = {} if name == "res5" else make.mask_parts() | make.keypoint_parts()
    return getattr(make, f"{name}_heads")(**extra)


def check(make, name, scene):
    heads = build(make, name)
    _, losses = heads(scene.images, scene.features, scene.proposals, scene.targets)
    assert all(v.isfinite() for v in losses.values()), losses
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    with torch.no_grad():
        detections, _ = heads(scene.images, scene.features, scene.proposals)
    for instances, size in zip(detections, scene.images.image_sizes, strict=True):
        boxes = instances.pred_boxes.tensor
        assert boxes.isfinite().all() and (boxes >= 0).all() and (boxes <= max(size)).all()
        assert instances.scores.isfinite().all() and instances.pred_masks.isfinite().all()
        assert ((instances.pred_classes >= 0) & (instances.pred_classes < 3)).all() and len(instances) <= 100


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_500_objects_give_finite_losses_and_detections(make, name):
    check(make, name, make.scene((500, 0)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_objects_of_one_pixel_give_finite_losses_and_detections(make, name):
    corner = torch.rand(4, 2) * 50
    specks = torch.cat([corner, corner + 1], dim=1)
    scene = make.scene((4,), boxes=specks)
    scene.proposals = [make.proposals(scene.targets[0], copies=1)]
    scene.proposals[0].proposal_boxes.tensor[-4:] = specks
    check(make, name, scene)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ground_truth_boxes_without_area_give_finite_losses(make, name):
    flat = torch.tensor([[5.0, 5, 5, 30], [10, 10, 40, 10], [20, 20, 20, 20]])
    check(make, name, make.scene((3,), boxes=flat))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ground_truth_boxes_beyond_the_image_give_finite_losses(make, name):
    check(make, name, make.scene((2,), boxes=torch.tensor([[-30.0, -20, 90, 100], [70, 50, 200, 300]])))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("sizes", [[(64, 80)], [(32, 96), (64, 40), (64, 96)]])
def test_batches_of_one_image_and_of_different_sizes_are_finite(make, name, sizes):
    check(make, name, make.scene(tuple(range(1, len(sizes) + 1)), sizes=sizes))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_losses_and_detections_of_bfloat16_features_are_float32(make, name):
    heads, scene = build(make, name), make.scene()
    scene.features = {k: f.detach().bfloat16().requires_grad_() for k, f in scene.features.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, losses = heads(scene.images, scene.features, scene.proposals, scene.targets)
        detections, _ = heads(scene.images, scene.features, scene.proposals)
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    assert all(f.scores.dtype == f.pred_masks.dtype == torch.float32 for f in detections)
    assert all(f.pred_boxes.tensor.dtype == torch.float32 for f in detections)
