import dataclasses

import numpy as np
import torch

from hydet.data import Record, ShapesDataset, segment_to_mask
from hydet.data.datasets.coco_format import records_to_coco, segment_to_coco


def test_records_to_coco_agrees_with_shapes_dataset():
    dataset = ShapesDataset(num_images=12, seed=1, crowd_fraction=0.4)
    coco = records_to_coco([dataset[i] for i in range(len(dataset))], dataset.metadata)
    expected = dataset.to_coco()
    assert coco["images"] == expected["images"]
    assert len(coco["annotations"]) == len(expected["annotations"]) > 0
    for annotation, other in zip(coco["annotations"], expected["annotations"]):
        for key in ("image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "num_keypoints"):
            assert annotation[key] == other[key], key
        np.testing.assert_allclose(annotation["keypoints"], other["keypoints"], atol=0.01)
        np.testing.assert_allclose(annotation["rotated_bbox"], other["rotated_bbox"], atol=0.01)
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))


def test_masks_without_segments_become_run_length_codes():
    dataset = ShapesDataset(num_images=3, seed=1)
    record = dataclasses.replace(dataset[1], segments=None)
    coco = records_to_coco([record], dataset.metadata)
    for annotation, mask in zip(coco["annotations"], record.masks, strict=True):
        decoded = segment_to_mask(annotation["segmentation"], record.height, record.width)
        np.testing.assert_array_equal(decoded, mask.numpy())
        assert annotation["area"] == mask.sum()


def test_first_pixel_of_a_mask_survives():
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    mask[0, 0, 0] = True
    record = Record(
        image=torch.zeros(3, 2, 3, dtype=torch.uint8),
        image_id=1,
        file_name="a.png",
        height=2,
        width=3,
        boxes=torch.tensor([[0.0, 0, 1, 1]]),
        classes=torch.tensor([0]),
        iscrowd=torch.tensor([False]),
        annotation_ids=torch.tensor([1]),
        masks=mask,
    )
    (annotation,) = records_to_coco([record], ShapesDataset(num_images=1).metadata)["annotations"]
    assert annotation["segmentation"] == {"size": [2, 3], "counts": [0, 1, 5]}


def test_keypoint_offset_moves_labeled_keypoints_only():
    dataset = ShapesDataset(num_images=12, seed=1)
    records = [dataset[i] for i in range(len(dataset))]
    plain = records_to_coco(records, dataset.metadata)["annotations"]
    moved = records_to_coco(records, dataset.metadata, keypoint_offset=0.5)["annotations"]
    for a, b in zip(plain, moved, strict=True):
        for (x, y, v), (x2, y2, _) in zip(
            np.reshape(a["keypoints"], (-1, 3)), np.reshape(b["keypoints"], (-1, 3))
        ):
            assert (x - x2, y - y2) == ((0.5, 0.5) if v > 0 else (0, 0))


def test_region_without_pixels_becomes_an_empty_code():
    assert segment_to_coco(None, 2, 3) == {"size": [2, 3], "counts": [6]}
    assert segment_to_coco({"size": [2, 3], "counts": b"6"}, 2, 3) == {"size": [2, 3], "counts": "6"}
