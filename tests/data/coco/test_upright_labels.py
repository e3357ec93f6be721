"""Label Studio writes the stored size of EXIF-rotated photos, with boxes in the upright photo."""

import pytest
from PIL import Image

from hydet.data import CocoDataset

UPRIGHT = (30, 40)  # (width, height)


def photos(coco_folder, annotation, boxes, *, json_size, orientation=6, upright=UPRIGHT):
    """Write EXIF-rotated photos with one box each; a red corner marks the upper left of the upright photo."""
    images, entries = [], []
    arguments = coco_folder()
    for i, box in enumerate(boxes):
        name = f"p{i}.jpg"
        images.append({"id": i, "file_name": name, "width": json_size[0], "height": json_size[1]})
        entries.append(annotation(id=i + 1, image_id=i, bbox=box, area=80, segmentation=...))
        image = Image.new("RGB", upright)
        image.paste((255, 0, 0), (0, 0, 8, 8))
        turn = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 1: None}[orientation]
        exif = Image.Exif()
        exif[0x112] = orientation
        stored = image if turn is None else image.transpose(turn)
        stored.save(arguments["images"] / name, exif=exif, quality=95)
    return coco_folder(entries, images=images)


def is_upright(record):
    return record.image.shape[1:] == UPRIGHT[::-1] and record.image[0, 2, 2] > 200


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("policy", ["drop", "clamp", "raise"])
def test_boxes_that_fit_only_the_upright_photo_decide(coco_folder, annotation, policy, orientation):
    boxes = [[5, 28, 10, 10], [5, 5, 10, 10], [2, 20, 20, 20]]  # the second one fits both
    arguments = photos(coco_folder, annotation, boxes, json_size=UPRIGHT[::-1], orientation=orientation)
    dataset = CocoDataset(**arguments, policy=policy)
    assert dataset.report().counts == {("other_orientation", "read upright"): 3}
    for record, (x, y, w, h) in zip(dataset, boxes):
        assert is_upright(record) and record.boxes.tolist() == [[x, y, x + w, y + h]]
    assert {(i["width"], i["height"]) for i in dataset.to_coco()["images"]} == {UPRIGHT}
    assert dataset.aspect_ratios.tolist() == [30 / 40] * 3


def test_boxes_that_fit_both_belong_to_the_size_in_the_json(coco_folder, annotation):
    arguments = photos(coco_folder, annotation, [[5, 5, 10, 10]] * 2, json_size=UPRIGHT[::-1])
    dataset = CocoDataset(**arguments)
    assert [record.image.shape for record in dataset] == [(3, 30, 40)] * 2
    assert dataset.report().counts == {("not_upright", "not rotated"): 2}


def test_boxes_that_fit_only_the_stored_photo_decide(coco_folder, annotation):
    boxes = [[28, 5, 10, 10], [5, 5, 10, 10]]
    dataset = CocoDataset(**photos(coco_folder, annotation, boxes, json_size=UPRIGHT))
    assert [record.image.shape for record in dataset] == [(3, 30, 40)] * 2
    assert dataset[0].boxes.tolist() == [[28, 5, 38, 15]]
    assert dataset.report().counts[("other_orientation", "not rotated")] == 2


def test_boxes_outside_of_photos_without_rotation_stay_outside(coco_folder, annotation):
    boxes = [[5, 28, 10, 10], [5, 5, 10, 10]]
    arguments = photos(
        coco_folder, annotation, boxes, json_size=UPRIGHT[::-1], orientation=1, upright=UPRIGHT[::-1]
    )
    dataset = CocoDataset(**arguments, policy="drop")
    assert dataset.report().counts == {("box_over_border", "clamped"): 1}


def test_polygons_decide_where_there_are_no_boxes(coco_folder, annotation):
    arguments = photos(coco_folder, annotation, [[5, 5, 10, 10]], json_size=UPRIGHT[::-1])
    images = [{"id": 0, "file_name": "p0.jpg", "width": 40, "height": 30}]
    entry = annotation(image_id=0, bbox=..., segmentation=[[5, 5, "15", 38, 5, 38]])
    dataset = CocoDataset(**(arguments | coco_folder([entry], images=images)))
    assert is_upright(dataset[0]) and dataset[0].boxes.tolist() == [[5, 5, 15, 38]]
