import pytest
import torch

from hydet.structures import Instances, RotatedBoxes
from hydet.visualization.annotations import Annotations

from .conftest import make_gray, make_record


def test_a_record_gives_every_kind_of_annotation():
    annotations = Annotations.from_example(make_record(sem_seg=torch.zeros(80, 120)))
    objects = annotations.objects((80, 120))
    assert objects.crowd.tolist() == [False, True, False] and objects.classes.tolist() == [0, 1, 1]
    # From a polygon, a run-length code, and no region.
    assert objects.masks.sum((1, 2)).tolist() == [1600, 40, 0]
    assert annotations.sem_seg is not None and annotations.panoptic_seg is None


def test_rotated_boxes_of_a_record_are_taken_on_request():
    record = make_record(rotated_boxes=torch.tensor([[40.0, 40, 30, 10, 30]] * 3))
    assert not isinstance(Annotations.from_example(record).instances.gt_boxes, RotatedBoxes)
    assert isinstance(Annotations.from_example(record, rotated=True).instances.gt_boxes, RotatedBoxes)
    without = Annotations.from_example(make_record(), rotated=True)
    assert not isinstance(without.instances.gt_boxes, RotatedBoxes)


def test_masks_of_a_record_come_before_its_segments():
    masks = torch.zeros(3, 80, 120, dtype=torch.bool)
    instances = Annotations.from_example(make_record(masks=masks)).instances
    assert not instances.gt_masks.tensor.any()
    assert not Annotations.from_example(make_record(segments=None)).instances.has("gt_masks")


def test_panoptic_labels_of_a_mapping_in_both_forms():
    ids, segments = torch.zeros(80, 120), [{"id": 0}]
    pair = Annotations.from_example({"image": make_gray(), "panoptic_seg": (ids, segments)})
    beside = Annotations.from_example({"image": make_gray(), "panoptic_seg": ids, "segments_info": segments})
    for annotations in (pair, beside):
        assert annotations.panoptic_seg is ids and annotations.segments_info is segments


@pytest.mark.parametrize("example", [None, {"instances": Instances((8, 8))}, torch.zeros(3)])
def test_examples_without_an_image_are_rejected(example):
    with pytest.raises(ValueError, match="with an image"):
        Annotations.from_example(example)


def test_no_instances_to_draw():
    with pytest.raises(ValueError, match="no instances"):
        Annotations.from_example({"image": make_gray()}).objects((80, 120))
