"""COCO files as annotation tools write them: all images and objects arrive, and the report names what was unusual."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from hydet.data import CocoDataset, DataError

SIZE = (40, 30)
NUM_IMAGES, NUM_OBJECTS = 4, 8


def make_content():
    images, annotations = [], []
    for i in range(NUM_IMAGES):
        images.append({"id": i + 1, "file_name": f"p {i}.jpg", "width": SIZE[0], "height": SIZE[1]})
        for k in range(2):
            x, y, w, h = 3 + i, 4 + 10 * k, 12, 8
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": i + 1, "category_id": k + 1, "bbox": [x, y, w, h],
                    "area": w * h, "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )  # fmt: skip
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def write(tmp_path):
    """Write a changed export: ``write(change)`` returns arguments for CocoDataset."""
    (tmp_path / "images").mkdir()
    for image in make_content()["images"]:
        Image.new("RGB", SIZE, (90, 120, 60)).save(tmp_path / "images" / image["file_name"])

    def write(change, encoding="utf-8"):
        content = make_content()
        content = change(content) or content
        (tmp_path / "a.json").write_bytes(json.dumps(content).encode(encoding))
        return {"json": tmp_path / "a.json", "images": tmp_path / "images"}

    return write


def for_all(key, change):
    """Return a function that changes each entry of a list of the file."""

    def change_all(content):
        for entry in content[key]:
            change(entry)

    return change_all


def via(content):
    for a in content["annotations"]:
        a.update(image_id=str(a["image_id"]), segmentation=a["segmentation"][0])
    content["categories"] *= len(content["images"])


def text_in_boxes(content):
    for a in content["annotations"]:
        a["bbox"] = [a["bbox"][0], *(f"{v:.4f}" for v in a["bbox"][1:])]


def text_in_masks(content):
    for a in content["annotations"]:
        a["segmentation"] = [[str(v) for v in a["segmentation"][0]]]


def points_in_pairs(content):
    for a in content["annotations"]:
        a["segmentation"] = [np.reshape(a["segmentation"], (-1, 2)).tolist()]


def group_of_all(content):
    group = {"id": 0, "name": "things-x4", "supercategory": "none"}
    content["categories"] = [group, *({**c, "supercategory": "things-x4"} for c in content["categories"])]


def ids_as(kind):
    def change(content):
        for entry in content["images"]:
            entry["id"] = kind(entry["id"])
        for entry in content["annotations"]:
            entry.update({key: kind(entry[key]) for key in ("id", "image_id", "category_id")})
        for entry in content["categories"]:
            entry["id"] = kind(entry["id"])

    return change


def image_ids_as(kind):
    def change(content):
        for entry in content["images"]:
            entry["id"] = kind(entry["id"])
        for entry in content["annotations"]:
            entry["image_id"] = kind(entry["image_id"])

    return change


def names_as(form):
    return for_all("images", lambda image: image.update(file_name=form(image["file_name"])))


def sizes_as(kind):
    return for_all(
        "images", lambda image: image.update(width=kind(image["width"]), height=kind(image["height"]))
    )


# (change, kinds of problems in the report)
READABLE = {
    "plain": (lambda content: None, set()),
    "via": (via, {"repeated_category"}),
    "string image ids in annotations": (
        for_all("annotations", lambda a: a.update(image_id=str(a["image_id"]))),
        set(),
    ),
    "digits as text": (ids_as(str), set()),
    "float ids": (ids_as(float), set()),
    "image ids of text": (image_ids_as("img-{}".format), {"renumbered_image_id"}),
    "ids of 64 bits": (image_ids_as(lambda i: i + 2**63 - 9), set()),
    "ids of more than 64 bits": (image_ids_as(lambda i: i + 2**64), {"renumbered_image_id"}),
    "sizes as text": (sizes_as(str), set()),
    "sizes as floats": (sizes_as(float), set()),
    "sizes missing": (for_all("images", lambda image: image.pop("width")), {"bad_image_size"}),
    "repeated categories": (lambda content: content.update(categories=content["categories"] * 3), {"repeated_category"}),
    "roboflow text in boxes": (text_in_boxes, {"other_number_format"}),
    "text in polygons": (text_in_masks, {"other_number_format"}),
    "points in pairs": (points_in_pairs, {"other_number_format"}),
    "roboflow unused group": (group_of_all, {"category_group"}),
    "crowds as text": (for_all("annotations", lambda a: a.update(iscrowd="0")), {"other_number_format"}),
    "crowds as booleans": (for_all("annotations", lambda a: a.update(iscrowd=False)), {"other_number_format"}),
    "crowds null": (for_all("annotations", lambda a: a.update(iscrowd=None)), set()),
    "area null": (for_all("annotations", lambda a: a.update(area=None)), set()),
    "backslashes": (names_as(lambda name: f"images\\{name}"), {"other_file_name"}),
    "percent codes": (names_as(lambda name: name.replace(" ", "%20")), {"other_file_name"}),
    "capitals": (names_as(str.upper), {"other_file_name"}),
    "folders in front": (names_as(lambda name: f"train/images/{name}"), {"other_file_name"}),
    "dots in front": (names_as(lambda name: f"./{name}"), set()),
    "dot and folder in front": (names_as(lambda name: f"./images/{name}"), {"other_file_name"}),
    "urls": (names_as(lambda name: f"https://example.org/data/{name}"), {"other_file_name"}),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["drop", "clamp", "raise"])
@pytest.mark.parametrize("case", READABLE)
def test_all_objects_of_an_export_arrive(write, case, policy):
    change, kinds = READABLE[case]
    dataset = CocoDataset(**write(change), policy=policy)
    assert {kind for kind, _ in dataset.report().counts} == kinds
    assert dataset.metadata.thing_classes == ("box", "ball")
    records = list(dataset)
    assert len(records) == NUM_IMAGES
    for i, record in enumerate(records):
        assert record.boxes.tolist() == [[3 + i, 4, 15 + i, 12], [3 + i, 14, 15 + i, 22]]
        assert record.classes.tolist() == [0, 1] and not record.iscrowd.any()
        assert record.bitmasks().sum(dim=(1, 2)).tolist() == [96, 96]
    assert len(dataset.to_coco()["annotations"]) == NUM_OBJECTS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(write, encoding):
    assert len(CocoDataset(**write(lambda content: None, encoding), policy="raise")) == NUM_IMAGES


def test_absolute_names(write):
    folder = write(lambda content: None)["images"]
    dataset = CocoDataset(**write(names_as(lambda name: str(folder / name))), policy="raise")
    assert len(dataset) == NUM_IMAGES and dataset[0].image.shape == (3, 30, 40) and not dataset.report()


def test_group_with_the_name_of_a_class(write):
    def change(content):
        content["categories"] = [
            {"id": 0, "name": "pen", "supercategory": "none"},
            {"id": 1, "name": "pen", "supercategory": "pen"},
        ]
        for a in content["annotations"]:
            a["category_id"] = 1

    dataset = CocoDataset(**write(change), policy="raise")
    assert dataset.metadata.thing_classes == ("pen",) and dataset.metadata.thing_ids == (1,)
    assert sum(map(len, dataset)) == NUM_OBJECTS


def test_two_used_categories_of_one_name_are_refused(write):
    with pytest.raises(DataError, match=r"a\.json: category 'box' appears twice, with ids 1, 2; rename"):
        CocoDataset(**write(lambda content: content["categories"][1].update(name="box")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("categories"), r"a\.json: is not a COCO file: it has no 'categories'; add a list"),
        (lambda content: content.update(categories=[]), r"a\.json: is not a COCO file: it has no 'categories'; add"),
        (lambda content: content.update(annotations=[]), "no image is left to use: no image has an annotation"),
        (for_all("annotations", lambda a: a.update(category_id=27)), "8 x unknown category, .* no category with id 27"),
        (for_all("images", lambda image: image.update(file_name="x" + image["file_name"])), r"4 x missing image.*nearest is p"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_name_the_cause(write, change, message):
    def apply(content):
        change(content)

    with pytest.raises(DataError, match=message) as error:
        CocoDataset(**write(apply), policy="drop", keep_empty=False)
    assert "\n" not in str(error.value)


def test_validation_file_with_other_categories(write):
    names = CocoDataset(**write(lambda content: None)).metadata.thing_classes

    def reorder(content):
        content["categories"] = [{"id": 1, "name": "ball"}, {"id": 2, "name": "box"}]
        for a in content["annotations"]:
            a["category_id"] = 3 - a["category_id"]

    dataset = CocoDataset(**write(reorder), class_names=names, policy="raise")
    assert dataset[0].classes.tolist() == [0, 1] and dataset.metadata.thing_ids == (2, 1)

    def fewer(content):
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]
        content["categories"] = content["categories"][:1]

    dataset = CocoDataset(**write(fewer), class_names=names, policy="raise")
    assert sum(map(len, dataset)) == NUM_OBJECTS // 2 and dataset.metadata.thing_classes == names

    def extra(content):
        content["categories"].append({"id": 3, "name": "kite"})

    dataset = CocoDataset(**write(extra), class_names=names, policy="raise")
    assert sum(map(len, dataset)) == NUM_OBJECTS and dataset.report().count("unused_category") == 1


def test_nulls_and_odds_are_counted(write):
    def change(content):
        a = content["annotations"]
        a[0]["bbox"] = None
        a[1]["bbox"] = [1, 2, 0, 5]
        a[2]["segmentation"] = None
        a[3]["category_id"] = 99
        a[4]["image_id"] = 999
        a[5]["segmentation"] = [[1, 1, 2, 2]]
        a[6]["bbox"] = [500, 500, 5, 5]
        a[7].update(area=None, iscrowd=None)
        content["images"].append(copy.deepcopy(content["images"][0]))
        content["images"][1]["width"] = None

    dataset = CocoDataset(**write(change), policy="clamp")
    assert dataset.report().counts == {
        ("duplicate_image_id", "dropped"): 1,
        ("bad_image_size", "read from the image"): 1,
        ("bad_box", "taken from its mask"): 1,
        ("empty_box", "taken from its mask"): 1,
        ("no_region", "kept for its box"): 1,
        ("unknown_category", "dropped"): 1,
        ("unknown_image", "dropped"): 1,
        ("bad_polygon", "left out"): 1,
        ("box_outside", "dropped"): 1,
    }
    assert sum(map(len, dataset)) == NUM_OBJECTS - 3


@pytest.mark.parametrize("value", ["0.5", 2, "yes", [1], float("nan"), 10**400])
def test_broken_crowd_flags_are_reported(write, value):
    arguments = write(lambda content: content["annotations"][3].update(iscrowd=value))
    with pytest.raises(DataError, match=r"p 1\.jpg, annotation 4: iscrowd must be 0 or 1"):
        CocoDataset(**arguments, policy="raise")
    dataset = CocoDataset(**arguments, policy="drop")
    assert sum(map(len, dataset)) == NUM_OBJECTS and not any(record.iscrowd.any() for record in dataset)
    assert dataset.report().counts == {("bad_flag", "read as 0"): 1}


def set_relative_boxes(a):
    x, y, w, h = a["bbox"]
    a.update(bbox=[x / SIZE[0], y / SIZE[1], w / SIZE[0], h / SIZE[1]], segmentation=[])


def set_corner_boxes(a):
    x, y, w, h = a["bbox"]
    x = SIZE[0] - w - x  # most objects of real files are not in the upper left corner
    a.update(bbox=[x, y, x + w, y + h], segmentation=[])


def nest_annotations(content):
    for image in content["images"]:
        annotations = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        image["annotations"] = [{k: v for k, v in a.items() if k != "image_id"} for a in annotations]
    del content["annotations"]


def test_annotations_inside_the_images_are_read(write):
    dataset = CocoDataset(**write(nest_annotations))
    assert sum(map(len, dataset)) == NUM_OBJECTS and "masks" in dataset.labels
    assert dataset[2].boxes.tolist() == CocoDataset(**write(lambda content: None))[2].boxes.tolist()
    assert dataset.report().counts == {("nested_annotations", "read from there"): 1}


def test_boxes_that_also_fit_as_corners_are_read(write):
    # One large object per image, a little over the border: sides are above the coordinates of the corner.
    change = for_all("annotations", lambda a: a.update(bbox=[2, 2, 39, 29], segmentation=[]))
    assert sum(map(len, CocoDataset(**write(change)))) == NUM_OBJECTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (for_all("annotations", set_corner_boxes), "a.json: all boxes fit their images as two corners"),
        (for_all("annotations", set_relative_boxes), "all boxes lie between 0 and 1, so they are relative"),
        (for_all("annotations", lambda a: a.update(category_id=27)), "id 27, only [1, 2]; add it to 'categories'"),
        (for_all("annotations", lambda a: a.update(image_id="p 0.jpg")), "'p 0.jpg'; 'images' has ids such as 1"),
        (lambda c: {**c, "annotations": []}, "no image has an annotation: the file has none; export the labels with the images"),
        (lambda c: {"shapes": [], "imagePath": "p.jpg"}, "no list 'images'; export the annotations in COCO's format"),
    ],
)  # fmt: skip
def test_files_without_objects_name_the_remedy(write, change, message):
    with pytest.raises(DataError) as error:
        CocoDataset(**write(change), policy="drop", keep_empty=False)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_plus_signs_of_urls_are_spaces(write):
    change = for_all(
        "images", lambda i: i.update(file_name="s3://bucket/" + i["file_name"].replace(" ", "+"))
    )
    assert len(CocoDataset(**write(change))) == NUM_IMAGES


@pytest.mark.parametrize("value", [{}, ""])
def test_other_forms_of_no_mask(write, value):
    dataset = CocoDataset(**write(for_all("annotations", lambda a: a.update(segmentation=value))))
    assert not dataset.report() and "masks" not in dataset.labels


@pytest.mark.parametrize("form", [lambda i: f"img-{i}", lambda i: i + 2**64, str])
def test_ids_of_the_file_are_known(write, form):
    def change(content):
        for image in content["images"]:
            image["id"] = form(image["id"])
        for a in content["annotations"]:
            a["image_id"], a["category_id"] = form(a["image_id"]), str(a["category_id"])
        for category in content["categories"]:
            category["id"] = str(category["id"])

    dataset = CocoDataset(**write(change))
    assert [dataset.file_ids.image(i) for i in dataset.image_ids.tolist()] == [form(i) for i in range(1, 5)]
    assert [dataset.file_ids.category(i) for i in dataset.metadata.thing_ids] == ["1", "2"]
