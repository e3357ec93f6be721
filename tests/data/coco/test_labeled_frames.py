"""Images that were resized or turned after labeling."""

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.data import CocoDataset, DataError

CODE = {
    "size": [60, 80],
    "counts": [60 * 20 + 10, 20, 40, 20, 60 * 58 + 30],
}  # columns 20 and 21, rows 10 to 29


def resized_export(coco_folder, annotation, json_size=(80, 60), image_size=(40, 30)):
    """Return arguments for labels of one size and an image of another."""
    images = [{"id": 5, "file_name": "a.png", "width": json_size[0], "height": json_size[1]}]
    categories = [{"id": 3, "name": "dog", "keypoints": ["nose", "tail"]}]
    polygon = annotation(
        bbox=[30, 20, 40, 30], segmentation=[[30, 20, 70, 20, 70, 50, 30, 50]], area=1200, keypoints=[31, 21, 2, 0, 0, 0]
    )  # fmt: skip
    coded = annotation(
        id=2, bbox=[20, 10, 2, 20], area=40, segmentation=CODE, rotated_bbox=[21, 20, 20, 2, 90]
    )
    arguments = coco_folder([polygon, coded], images=images, categories=categories)
    Image.new("RGB", image_size).save(arguments["images"] / "a.png")
    return arguments | {"keypoint_flip_pairs": []}


@pytest.mark.parametrize("policy", ["drop", "clamp"])
def test_labels_of_resized_images_are_scaled(coco_folder, annotation, policy):
    dataset = CocoDataset(
        **resized_export(coco_folder, annotation),
        policy=policy,
        keypoint_offset=0.5,
        rotated_from_polygons=False,
    )
    record = dataset[0]
    assert record.image.shape == (3, 30, 40) and (record.height, record.width) == (30, 40)
    assert record.boxes.tolist() == [[15, 10, 35, 25], [10, 5, 11, 15]]
    masks = record.bitmasks()
    assert masks.shape == (2, 30, 40) and masks[0].sum() == 300
    assert masks[1].sum() == 10 and masks[1, 5:15, 10].all()
    torch.testing.assert_close(record.keypoints[0], torch.tensor([[15.75, 10.75, 2], [0, 0, 0]]))
    torch.testing.assert_close(record.rotated_boxes[1], torch.tensor([10.5, 10, 10, 1, 90]))
    dataset[0]
    assert dataset.report().counts == {("other_size", "labels scaled"): 1}
    assert "the image has 40 x 30 pixels, but 80 x 60 in the JSON" in str(dataset.report())


def test_ground_truth_of_resized_images_is_in_the_frame_of_their_records(coco_folder, annotation):
    dataset = CocoDataset(**resized_export(coco_folder, annotation), policy="drop", keypoint_offset=0.5)
    coco = dataset.to_coco()
    assert (coco["images"][0]["height"], coco["images"][0]["width"]) == (30, 40)
    first, second = coco["annotations"]
    assert first["bbox"] == [15, 10, 20, 15] and first["area"] == 300
    assert first["segmentation"] == [[15, 10, 35, 10, 35, 25, 15, 25]]
    assert first["keypoints"] == [15.25, 10.25, 2, 0, 0, 0]
    assert second["segmentation"]["size"] == [30, 40] and second["rotated_bbox"] == [10.5, 10, 10, 1, 90]
    assert dataset.aspect_ratios.tolist() == [80 / 60]


def test_resized_images_are_refused_under_policy_raise(coco_folder, annotation):
    arguments = resized_export(coco_folder, annotation)
    with pytest.raises(
        DataError, match=r"a\.png: the image has 40 x 30 .* 80 x 60 in the JSON, .* policy=drop"
    ):
        CocoDataset(**arguments, policy="raise")[0]


def test_another_aspect_ratio_is_refused_or_stretched(coco_folder, annotation):
    arguments = resized_export(coco_folder, annotation, image_size=(40, 40))
    with pytest.raises(DataError, match=r"a\.png.*40 x 40.*80 x 60.*policy=clamp"):
        CocoDataset(**arguments, policy="drop")[0]
    dataset = CocoDataset(**arguments, policy="clamp")
    np.testing.assert_allclose(dataset[0].boxes[0], [15, 20 * 40 / 60, 35, 50 * 40 / 60], rtol=1e-6)
    assert dataset[0].bitmasks().shape == (2, 40, 40) and dataset.report().count("other_size") == 1


@pytest.mark.parametrize("size", [(27, 20), (33, 25), (160, 120), (81, 60)])
def test_rounded_sizes_have_the_same_aspect_ratio(coco_folder, annotation, size):
    dataset = CocoDataset(**resized_export(coco_folder, annotation, image_size=size), policy="drop")
    record = dataset[0]
    assert (record.width, record.height) == size
    scaled = dataset.to_coco()["annotations"][0]["bbox"]
    np.testing.assert_allclose(scaled, [30 * size[0] / 80, size[1] / 3, size[0] / 2, size[1] / 2])


def test_images_that_were_resized_and_have_the_stored_size_in_the_json(coco_folder, annotation):
    arguments = resized_export(coco_folder, annotation)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (40, 30)).save(arguments["images"] / "a.png", exif=exif)
    dataset = CocoDataset(**arguments, policy="drop")
    assert dataset[0].image.shape == (3, 30, 40) and dataset[0].boxes[0].tolist() == [15, 10, 35, 25]
    assert {kind for kind, _ in dataset.report().counts} == {"not_upright", "other_size"}
