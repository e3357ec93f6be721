import numpy as np
import pytest
import torch

from hydet.data import SHAPE_CLASSES, ShapesDataset, segment_to_mask
from hydet.structures import BitMasks


@pytest.fixture(scope="module")
def dataset():
    return ShapesDataset(num_images=60, seed=3, crowd_fraction=0.3, empty_fraction=0.1, cache=True)


@pytest.fixture(scope="module")
def records(dataset):
    return [dataset[i] for i in range(len(dataset))]


def assert_same(a, b):
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other), name
        elif name != "segments":
            assert value == other, name


def test_image_depends_only_on_seed_and_index():
    few, many = ShapesDataset(num_images=5, seed=3), ShapesDataset(num_images=500, seed=3, cache=True)
    assert_same(few[4], many[4])
    assert_same(many[4], many[4])
    assert not torch.equal(few[4].image, ShapesDataset(num_images=5, seed=4)[4].image)


def test_masks_boxes_and_segments_agree(records):
    for record in records:
        assert record.image.shape == (3, record.height, record.width) and record.image.dtype == torch.uint8
        assert record.masks.flatten(1).any(dim=1).all()
        assert record.masks.sum(dim=0).max() <= 1, "visible masks do not overlap"
        torch.testing.assert_close(BitMasks(record.masks).get_bounding_boxes().tensor, record.boxes)
        for mask, segment in zip(record.masks, record.segments):
            np.testing.assert_array_equal(segment_to_mask(segment, record.height, record.width), mask.numpy())


def test_variety_of_sizes_classes_and_visibility(records):
    counts = [len(r) for r in records]
    assert min(counts) == 0 and max(counts) >= 5
    assert set(torch.cat([r.classes for r in records]).tolist()) == set(range(len(SHAPE_CLASSES)))
    sides = torch.cat([r.boxes[:, 2:] - r.boxes[:, :2] for r in records]).amax(dim=1)
    assert sides.min() < 14 and sides.max() > 90
    assert any(r.iscrowd.any() for r in records)
    assert any(isinstance(s, dict) for r in records for s in r.segments)
    assert any(isinstance(s, list) for r in records for s in r.segments)
    visibility = torch.cat([r.keypoints[..., 2].flatten() for r in records])
    assert set(visibility.tolist()) == {0, 1, 2}


def test_keypoints_lie_in_the_direction_of_their_names(records, dataset):
    left, right, top, bottom = (
        dataset.metadata.keypoint_names.index(n) for n in ("left", "right", "top", "bottom")
    )
    for record in records:
        for mask, points, crowd in zip(record.masks, record.keypoints, record.iscrowd):
            if crowd:
                assert not points.any()
                continue
            for x, y, v in points.tolist():
                if v == 0:
                    assert (x, y) == (0, 0)
                else:
                    assert mask[int(y), int(x)] == (v == 2)
            seen = points[:, 2] > 0
            if seen[left] and seen[right]:
                assert points[left, 0] < points[right, 0] and points[left, 1] == points[right, 1]
            if seen[top] and seen[bottom]:
                assert points[top, 1] < points[bottom, 1] and points[top, 0] == points[bottom, 0]


def test_rotated_boxes_enclose_the_masks_tightly(records):
    for record in records:
        for mask, box, segment, crowd in zip(
            record.masks, record.rotated_boxes, record.segments, record.iscrowd
        ):
            if crowd:
                continue
            y, x = np.nonzero(mask.numpy())
            cx, cy, w, h, degrees = box.tolist()
            assert -90 <= degrees < 90
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            dx, dy = x + 0.5 - cx, y + 0.5 - cy
            u, v = c * dx - s * dy, s * dx + c * dy
            assert np.abs(u).max() <= w / 2 + 1 and np.abs(v).max() <= h / 2 + 1
            if isinstance(segment, list):  # the whole object is visible
                assert np.abs(u).max() >= w / 2 - 1.5 and np.abs(v).max() >= h / 2 - 1.5


def test_semantic_and_panoptic_labels_follow_the_masks(records, dataset):
    for record in records:
        things = record.masks.any(dim=0)
        assert torch.equal(record.sem_seg == 0, things)
        assert record.sem_seg.max() < len(dataset.metadata.stuff_classes)
        assert {s["id"] for s in record.segments_info} == set(record.panoptic_seg.unique().tolist())
        things_info = [s for s in record.segments_info if s["isthing"]]
        for segment, mask, label in zip(things_info, record.masks, record.classes.tolist()):
            assert torch.equal(record.panoptic_seg == segment["id"], mask)
            assert segment["category_id"] == label and segment["area"] == int(mask.sum())


def test_aspect_ratios_match_the_images():
    dataset = ShapesDataset(num_images=30, image_size=(64, 80), max_image_size=(100, 140))
    records = [dataset[i] for i in range(30)]
    np.testing.assert_allclose(dataset.aspect_ratios, [r.width / r.height for r in records])
    assert all(64 <= r.height <= 100 and 80 <= r.width <= 140 for r in records)
    assert len({r.height for r in records}) > 5


def test_chosen_classes_keep_their_ids():
    dataset = ShapesDataset(num_images=20, class_names=["star", "heart"])
    everything = ShapesDataset(num_images=1).metadata
    assert dataset.metadata.thing_classes == ("star", "heart")
    assert dataset.metadata.thing_ids == tuple(
        everything.thing_ids[everything.thing_classes.index(n)] for n in ("star", "heart")
    )
    assert set(torch.cat([dataset[i].classes for i in range(20)]).tolist()) == {0, 1}


def test_to_coco_is_complete(dataset, records):
    coco = dataset.to_coco()
    assert [i["id"] for i in coco["images"]] == [r.image_id for r in records]
    assert len(coco["annotations"]) == sum(len(r) for r in records)
    ids = [a["id"] for a in coco["annotations"]]
    assert len(set(ids)) == len(ids) and min(ids) > 0
    assert {a["category_id"] for a in coco["annotations"]} <= set(dataset.metadata.thing_ids)
    assert any(a["iscrowd"] for a in coco["annotations"])


def test_negative_and_invalid_indices(dataset):
    assert dataset[-1].image_id == len(dataset)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_names": ["circle"]},
        {"class_names": []},
        {"num_images": -1},
        {"min_objects": 5, "max_objects": 2},
        {"image_size": (16, 16)},
        {"image_size": (128, 128), "max_image_size": (64, 64)},
        {"max_size": 2.0},
    ],
)
def test_invalid_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="ShapesDataset"):
        ShapesDataset(**({"num_images": 3} | arguments))
