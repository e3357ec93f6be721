import pytest
import torch

import hydet
from hydet.runs.benchmark_inputs import OBJECTS, calibrate, random_batch
from hydet.structures import RotatedBoxes

SMALL = ["backbone=r18_slim", "size=slim"]
SIZE = (64, 96)


def build(*overrides):
    torch.manual_seed(0)
    return hydet.instantiate(hydet.compose(*overrides, *SMALL).model)


def make_batch(model, **kwargs):
    return random_batch(model, 2, SIZE, num_classes=3, num_keypoints=5, num_labels=5, **kwargs)


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        (["model=mask_rcnn_fpn"], {"gt_boxes", "gt_classes", "gt_masks"}),
        (["model=keypoint_rcnn_fpn"], {"gt_boxes", "gt_classes", "gt_keypoints"}),
        (["model=panoptic_fpn", "data=shapes_panoptic"], {"gt_boxes", "gt_classes", "gt_masks"}),
        (["model=rotated_faster_rcnn_fpn", "data=shapes_rotated"], {"gt_boxes", "gt_classes"}),
    ],
)
def test_a_batch_has_the_labels_that_the_model_learns_from(overrides, fields):
    model = build(*overrides)
    batch = make_batch(model)
    for entry in batch:
        assert entry["image"].dtype == torch.uint8 and entry["image"].shape == (3, *SIZE)
        assert len(entry["instances"]) == OBJECTS and set(entry["instances"].get_fields()) == fields
        assert ("sem_seg" in entry) == ("semantic" in model.tasks)
        if "rotated" in model.tasks:
            assert isinstance(entry["instances"].gt_boxes, RotatedBoxes)
    with torch.no_grad():
        assert all(loss.isfinite() for loss in model.compute_losses(batch).values())


def test_a_batch_depends_on_the_seed_only():
    model = build("model=retinanet")
    first, again, other = make_batch(model), make_batch(model), make_batch(model, seed=1)
    assert torch.equal(first[1]["image"], again[1]["image"])
    assert not torch.equal(first[1]["image"], other[1]["image"])


@pytest.mark.parametrize("model", ["faster_rcnn_fpn", "fcos"])
def test_a_calibrated_model_detects_objects(model):
    model = build(f"model={model}")
    batch = make_batch(model)
    calibrate(model, batch)
    with torch.no_grad():
        results = model.inference(batch)
    assert not model.training and all(len(result["instances"]) >= 50 for result in results)
