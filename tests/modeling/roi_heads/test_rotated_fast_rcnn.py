import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import (
    Box2BoxTransform,
    Box2BoxTransformRotated,
    ROIPooler,
    RotatedFastRCNNOutputLayers,
    RROIHeads,
)
from hydet.structures import ImageList, Instances, RotatedBoxes

SIZE = (64, 80)


def predictor(**options):
    settings = {
        "input_shape": ShapeSpec(channels=16),
        "box2box_transform": Box2BoxTransformRotated(weights=(10, 10, 5, 5, 10)),
        "num_classes": 3,
    }
    return RotatedFastRCNNOutputLayers(**(settings | options))


def heads(make, **options):
    settings = {
        "num_classes": 3,
        "batch_size_per_image": 64,
        "positive_fraction": 0.5,
        "proposal_matcher": make.matcher(),
        "box_in_features": ["p2", "p3"],
        "box_pooler": ROIPooler(
            output_size=4,
            scales=[1 / 4, 1 / 8],
            sampling_ratio=2,
            pooler_type="ROIAlignRotated",
            canonical_box_size=24,
            canonical_level=3,
        ),
        "box_head": make.box_head(),
        "box_predictor": predictor(),
    }
    return RROIHeads(**(settings | options))


def rotated(count):
    sides = torch.rand(count, 2) * 20 + 8
    center = torch.rand(count, 2) * torch.tensor([SIZE[1], SIZE[0]])
    return torch.cat([center, sides, torch.rand(count, 1) * 360 - 180], dim=1)


def scene(counts=(3, 2)):
    features = {f"p{k}": torch.randn(len(counts), 8, 64 >> k, 80 >> k, requires_grad=True) for k in (2, 3)}
    targets = [
        Instances(SIZE, gt_boxes=RotatedBoxes(rotated(n)), gt_classes=torch.randint(3, (n,))) for n in counts
    ]
    proposals = []
    for targets_i in targets:
        near = targets_i.gt_boxes.tensor.repeat(3, 1)
        boxes = RotatedBoxes(torch.cat([rotated(10), near + torch.randn_like(near)]))
        proposals.append(Instances(SIZE, proposal_boxes=boxes, objectness_logits=torch.randn(len(boxes))))
    return ImageList(torch.zeros(len(counts), 3, *SIZE), [SIZE] * len(counts)), features, proposals, targets


@pytest.mark.parametrize("counts", [(3, 2), (0, 2), (0, 0)])
def test_losses_are_finite_and_reach_every_parameter(make, counts):
    module, (images, features, proposals, targets) = heads(make), scene(counts)
    sampled, losses = module(images, features, proposals, targets)
    assert all(isinstance(s.proposal_boxes, RotatedBoxes) for s in sampled)
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert all(f.grad is not None for f in features.values())


@torch.no_grad()
def test_detections_are_rotated_boxes(make):
    images, features, proposals, _ = scene()
    detections, losses = heads(make)(images, features, proposals)
    assert losses == {}
    for instances in detections:
        assert isinstance(instances.pred_boxes, RotatedBoxes) and len(instances) > 0
        assert (instances.pred_boxes.tensor[:, 4].abs() <= 180).all()


@torch.no_grad()
def test_boxes_rotated_by_360_degrees_match(make):
    _, _, _, targets = scene((3,))
    rotated_boxes = targets[0].gt_boxes.tensor.clone()
    rotated_boxes[:, 4] += 360
    proposals = [
        Instances(SIZE, proposal_boxes=RotatedBoxes(rotated_boxes), objectness_logits=torch.zeros(3))
    ]
    module = heads(make, proposal_append_gt=False, positive_fraction=1.0)
    (sampled,) = module.label_and_sample_proposals(proposals, targets)
    assert sorted(sampled.gt_classes.tolist()) == sorted(targets[0].gt_classes.tolist())


def test_invalid_arguments_raise(make):
    with pytest.raises(ValueError, match="boxes only"):
        heads(make, **make.mask_parts())
    with pytest.raises(ValueError, match="boxes only"):
        heads(make, **make.keypoint_parts())
    with pytest.raises(ValueError, match="predicted boxes"):
        heads(make, train_on_pred_boxes=True)
    with pytest.raises(ValueError, match="Box2BoxTransformRotated"):
        predictor(box2box_transform=Box2BoxTransform(weights=(1, 1, 1, 1)))
