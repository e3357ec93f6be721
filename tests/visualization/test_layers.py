import pytest
import torch

from hydet.structures import Boxes, Instances, Keypoints, PolygonMasks
from hydet.visualization import (
    draw_ground_truth,
    draw_instances,
    draw_panoptic,
    draw_predictions,
    draw_semantic,
)

from .conftest import METADATA, SQUARE, changed_pixels, make_gray, make_predictions, make_record

PLAIN = {"labels": False, "min_side": 0}
NO_CROWD = torch.tensor([False, False, False])


@pytest.fixture
def segments():
    ids = torch.zeros(80, 120, dtype=torch.int32)
    ids[10:40, 10:40] = 3
    return ids, [{"id": 3, "category_id": 1, "isthing": True}]


def test_a_record_and_its_model_input_look_alike():
    record = make_record(iscrowd=NO_CROWD, keypoints=None, segments=[[SQUARE]] * 3)
    instances = Instances(
        (80, 120),
        gt_boxes=Boxes(record.boxes),
        gt_classes=record.classes,
        gt_masks=PolygonMasks([[SQUARE]] * 3),
    )
    drawn = draw_ground_truth({"image": record.image, "instances": instances}, METADATA)
    assert torch.equal(drawn, draw_ground_truth(record, METADATA))
    assert changed_pixels(drawn, draw_ground_truth(record, METADATA, labels=False)).any()


def test_the_metadata_of_a_record_is_the_default():
    expected = draw_ground_truth(make_record(), METADATA)
    assert torch.equal(draw_ground_truth(make_record(metadata=METADATA)), expected)


def test_crowd_regions_keypoints_and_rotated_boxes_are_drawn(gray):
    drawn = draw_ground_truth(make_record(), METADATA, **PLAIN)
    changed = changed_pixels(drawn, gray)
    assert changed[30:70, 70].any() and changed[40, 30]
    no_crowd = draw_ground_truth(make_record(iscrowd=NO_CROWD), METADATA, **PLAIN)
    assert changed_pixels(drawn, no_crowd).any()
    rotated = make_record(rotated_boxes=torch.tensor([[40.0, 40, 30, 10, 30]] * 3))
    assert torch.equal(draw_ground_truth(rotated, METADATA, **PLAIN), drawn)
    assert changed_pixels(draw_ground_truth(rotated, METADATA, rotated=True, **PLAIN), drawn).any()


def test_keypoints_of_a_model_input(gray):
    instances = Instances(
        (80, 120), gt_boxes=Boxes(torch.ones(1, 4)), gt_keypoints=Keypoints(make_record().keypoints[:1])
    )
    drawn = draw_ground_truth({"image": gray, "instances": instances}, METADATA, min_side=0)
    assert changed_pixels(drawn, gray)[30, 30]


def test_ground_truth_layers(gray, segments):
    labels = torch.arange(80)[:, None].expand(80, 120) % 2
    record = make_record(sem_seg=labels, panoptic_seg=segments[0], segments_info=segments[1])
    drawn = draw_ground_truth(record, METADATA, layers="semantic", **PLAIN)
    assert torch.equal(drawn, draw_semantic(gray, labels, METADATA, labels=False))
    drawn = draw_ground_truth(record, METADATA, layers=("panoptic",), **PLAIN)
    assert torch.equal(drawn, draw_panoptic(gray, *segments, METADATA, labels=False))


def test_prediction_layers(gray, segments):
    output = {
        "panoptic_seg": segments,
        "instances": make_predictions(1),
        "sem_seg": torch.rand(2, 80, 120),
    }
    panoptic = draw_panoptic(gray, *segments, METADATA, labels=False)
    assert torch.equal(draw_predictions(gray, output, METADATA, **PLAIN), panoptic), "the default"
    both = draw_predictions(gray, output, METADATA, layers=("instances", "panoptic"), **PLAIN)
    assert torch.equal(both, draw_instances(panoptic, make_predictions(1), METADATA, **PLAIN))
    semantic = draw_predictions(gray, output, METADATA, layers=("semantic",), **PLAIN)
    assert torch.equal(semantic, draw_semantic(gray, output["sem_seg"], METADATA, labels=False))


def test_missing_and_unknown_layers():
    with pytest.raises(ValueError, match="one of"):
        draw_ground_truth(make_record(), METADATA, layers=("depth",))
    with pytest.raises(ValueError, match="nothing to draw for layer 'panoptic'"):
        draw_ground_truth(make_record(), METADATA, layers=("panoptic",))
    assert draw_ground_truth({"image": make_gray()}, METADATA, min_side=0).equal(make_gray())
    assert draw_predictions(make_gray(), {}, METADATA, min_side=0).equal(make_gray())
