"""Conversion of hydet's inputs to mmdet."""

import numpy as np
import pytest
import torch

from hydet.interop.mmdet.samples import add_ground_truth, make_sample, masks_to_mmdet, sem_seg_to_mmdet
from hydet.structures import BitMasks, Boxes, Instances, PolygonMasks

SQUARE = np.array([1.0, 1, 5, 1, 5, 5, 1, 5])


def test_make_sample(stub_mmdet):
    sample = make_sample({"file_name": "a.jpg", "image_id": 7}, (50, 80), (100, 320))
    assert sample.img_shape == (50, 80) and sample.ori_shape == (100, 320)
    assert sample.scale_factor == (0.25, 0.5), "(width, height) factors from output to input"
    assert sample.img_path == "a.jpg" and sample.img_id == 7
    assert "gt_instances" not in sample


def test_bitmaps_are_converted(stub_mmdet):
    bitmaps = torch.rand(2, 6, 8) > 0.5
    for masks in (BitMasks(bitmaps), bitmaps):
        converted = masks_to_mmdet(masks, (6, 8))
        assert type(converted).__name__ == "BitmapMasks" and (converted.height, converted.width) == (6, 8)
        assert converted.masks.dtype == np.uint8 and np.array_equal(converted.masks, bitmaps.numpy())


def test_polygons_are_converted(stub_mmdet):
    converted = masks_to_mmdet(PolygonMasks([[SQUARE, SQUARE + 10], [SQUARE]]), (20, 20))
    assert type(converted).__name__ == "PolygonMasks"
    assert [len(polygons) for polygons in converted.masks] == [2, 1] and np.array_equal(
        converted.masks[0][1], SQUARE + 10
    )


@pytest.mark.parametrize("polygons", [[], [[SQUARE], []]])
def test_objects_without_polygons_become_bitmaps(stub_mmdet, polygons):
    converted = masks_to_mmdet(PolygonMasks(polygons), (6, 8))
    assert type(converted).__name__ == "BitmapMasks" and converted.masks.shape == (len(polygons), 6, 8)
    assert converted.masks.sum() == 16 * bool(polygons)


def test_masks_of_another_size_or_type_raise(stub_mmdet):
    with pytest.raises(ValueError, match=r"size \(6, 8\), the image has size \(6, 9\)"):
        masks_to_mmdet(BitMasks(torch.zeros(1, 6, 8)), (6, 9))
    with pytest.raises(TypeError, match="got list"):
        masks_to_mmdet([], (6, 8))


def test_add_ground_truth(stub_mmdet):
    sample = make_sample({}, (6, 8), (6, 8))
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    instances = Instances((6, 8), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([2], dtype=torch.int32))
    add_ground_truth(sample, instances, torch.ones(6, 8).long())
    gt_instances = sample.gt_instances
    assert torch.equal(gt_instances.bboxes, boxes) and gt_instances.labels.dtype == torch.int64
    assert "masks" not in gt_instances and sample.gt_sem_seg.sem_seg.shape == (1, 6, 8)


def test_semantic_labels_put_things_first():
    labels = torch.tensor([0, 1, 2, 255])
    assert sem_seg_to_mmdet(labels, num_things=80).tolist() == [0, 80, 81, 255]
