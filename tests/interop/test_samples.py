"""hydet's inputs as mmdet's."""

import numpy as np
import pytest
import torch

from hydet.interop.mmdet.samples import add_ground_truth, make_sample, masks_to_mmdet, sem_seg_to_mmdet
from hydet.structures import BitMasks, Boxes, Instances, PolygonMasks

SQUARE = np.array([1.0, 1, 5, 1, 5, 5, 1, 5])


def test_sizes_and_scale(paper_mmdet):
    sample = make_sample({"file_name": "a.jpg", "image_id": 7}, (50, 80), (100, 320))
    assert sample.img_shape == (50, 80) and sample.ori_shape == (100, 320)
    assert sample.scale_factor == (0.25, 0.5), "width first: what output pixels are multiplied by"
    assert sample.img_path == "a.jpg" and sample.img_id == 7
    assert "gt_instances" not in sample


def test_bitmaps(paper_mmdet):
    bitmaps = torch.rand(2, 6, 8) > 0.5
    for masks in (BitMasks(bitmaps), bitmaps):
        found = masks_to_mmdet(masks, (6, 8))
        assert type(found).__name__ == "BitmapMasks" and (found.height, found.width) == (6, 8)
        assert found.masks.dtype == np.uint8 and np.array_equal(found.masks, bitmaps.numpy())


def test_polygons_stay_polygons(paper_mmdet):
    found = masks_to_mmdet(PolygonMasks([[SQUARE, SQUARE + 10], [SQUARE]]), (20, 20))
    assert type(found).__name__ == "PolygonMasks"
    assert [len(one) for one in found.masks] == [2, 1] and np.array_equal(found.masks[0][1], SQUARE + 10)


@pytest.mark.parametrize("polygons", [[], [[SQUARE], []]])
def test_objects_without_polygons_become_bitmaps(paper_mmdet, polygons):
    found = masks_to_mmdet(PolygonMasks(polygons), (6, 8))
    assert type(found).__name__ == "BitmapMasks" and found.masks.shape == (len(polygons), 6, 8)
    assert found.masks.sum() == 16 * bool(polygons)


def test_masks_of_another_size_or_kind_are_refused(paper_mmdet):
    with pytest.raises(ValueError, match=r"size \(6, 8\), the image is \(6, 9\)"):
        masks_to_mmdet(BitMasks(torch.zeros(1, 6, 8)), (6, 9))
    with pytest.raises(TypeError, match="got list"):
        masks_to_mmdet([], (6, 8))


def test_ground_truth(paper_mmdet):
    sample = make_sample({}, (6, 8), (6, 8))
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    instances = Instances((6, 8), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([2], dtype=torch.int32))
    add_ground_truth(sample, instances, torch.ones(6, 8).long())
    truth = sample.gt_instances
    assert torch.equal(truth.bboxes, boxes) and truth.labels.dtype == torch.int64
    assert "masks" not in truth and sample.gt_sem_seg.sem_seg.shape == (1, 6, 8)


def test_semantic_labels_put_things_first():
    labels = torch.tensor([0, 1, 2, 255])
    assert sem_seg_to_mmdet(labels, num_things=80).tolist() == [0, 80, 81, 255]
