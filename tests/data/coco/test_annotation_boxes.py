import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper
from hydet.data.coco.rotated_shapes import corners_of

TURNED = corners_of((20, 15, 12, 6, 30))
TALL = 1e300


def test_cvat_rotation_turns_the_box(coco_folder, annotation):
    entry = annotation(
        bbox=[10, 10, 20, 8], segmentation=[], attributes={"occluded": False, "rotation": 90.0}
    )
    upright = annotation(id=2, segmentation=[], attributes={"rotation": 0.0})
    dataset = CocoDataset(**coco_folder([entry, upright]), policy="raise")
    record = dataset[0]
    assert record.rotated_boxes.tolist() == [[20, 14, 20, 8, -90], [9, 9, 10, 8, 0]]
    torch.testing.assert_close(record.boxes, torch.tensor([[16.0, 4, 24, 24], [4, 5, 14, 13]]))
    assert dataset.report().counts == {("rotation_attribute", "read as a rotated box"): 1}


def test_cvat_rotation_turns_the_polygon_of_a_rectangle(coco_folder, annotation):
    polygon = [[10, 10, 30, 10, 30, 18, 10, 18]]
    entry = annotation(bbox=[10, 10, 20, 8], segmentation=polygon, attributes={"rotation": 90})
    record = CocoDataset(**coco_folder([entry]), policy="raise")[0]
    mask = record.bitmasks()[0]
    assert mask[4:24, 16:24].all() and mask.sum() == 160


def test_cvat_rotation_of_other_polygons_is_not_applied_twice(coco_folder, annotation):
    entry = annotation(attributes={"rotation": 30}, segmentation=[[4, 9, 9, 5, 14, 9, 9, 13]])
    record = CocoDataset(**coco_folder([entry]), policy="raise", rotated_from_polygons=False)[0]
    assert record.rotated_boxes is None and record.boxes.tolist() == [[4, 5, 14, 13]]


@pytest.mark.parametrize("with_masks", [True, False])
def test_quadrilaterals_are_rotated_boxes(coco_folder, annotation, with_masks):
    entry = annotation(bbox=[12, 9, 16, 12], segmentation=[TURNED])
    upright = annotation(id=2)
    dataset = CocoDataset(**coco_folder([entry, upright]), policy="raise", with_masks=with_masks)
    record = dataset[0]
    torch.testing.assert_close(record.rotated_boxes[0], torch.tensor([20.0, 15, 12, 6, 30]))
    assert record.boxes[0].tolist() == [12, 9, 28, 21]
    instances = InputMapper(training=True, rotated=True, mask_format=None)(record)["instances"]
    assert len(instances) == 2 and instances.gt_boxes.tensor.shape == (2, 5)


def test_quadrilaterals_among_other_polygons_need_the_argument(coco_folder, annotation):
    entries = [annotation(segmentation=[TURNED]), annotation(id=2, segmentation=[[4, 5, 14, 5, 14, 13]])]
    assert CocoDataset(**coco_folder(entries))[0].rotated_boxes is None
    record = CocoDataset(**coco_folder(entries), rotated_from_polygons=True)[0]
    torch.testing.assert_close(record.rotated_boxes, torch.tensor([[20.0, 15, 12, 6, 30], [9, 9, 10, 8, 0]]))


def test_bbox_of_four_corners(coco_folder, annotation):
    record = CocoDataset(**coco_folder([annotation(bbox=TURNED, segmentation=...)]), policy="raise")[0]
    torch.testing.assert_close(record.rotated_boxes, torch.tensor([[20.0, 15, 12, 6, 30]]))
    assert record.boxes[0, 0] == pytest.approx(min(TURNED[0::2]))


@pytest.mark.parametrize(
    "box",
    [[1, 2, 1e-6, 5], [1, 2, 5, 1e-5], [3e7, 2, 0.5, 5], [1, 1, TALL, 0], [TALL, TALL, 1, 1, 30], [1, 1, 0, 5, 30],
     [TALL] * 8, [2**70, 1, 5, 5], [10**400, 1, 5, 5], [1, 1, float("inf"), 1], ["a", 1, 2, 3], [1, 2, 3], {}, 5],
)  # fmt: skip
def test_boxes_that_cannot_be_used_are_reported(coco_folder, annotation, box):
    arguments = coco_folder([annotation(), annotation(id=2, bbox=box, segmentation=...)])
    dataset = CocoDataset(**arguments, policy="drop", with_masks=False)
    assert len(dataset[0]) == 1 and dataset.report().count() == 1
    with pytest.raises(DataError, match=r"a\.png, annotation 2: "):
        CocoDataset(**arguments, policy="raise", with_masks=False)


def test_angles_of_any_size(coco_folder, annotation):
    record = CocoDataset(**coco_folder([annotation(bbox=[20, 15, 10, 4, 3690], segmentation=...)]))[0]
    assert record.rotated_boxes.tolist() == [[20, 15, 10, 4, 90]]
