"""Metadata of published datasets without their annotation files."""

import hydet
from hydet.runs.known_metadata import known_metadata


def metadata_of(*overrides, **options):
    class Model:
        tasks, input_format, needs_proposals = options.pop("tasks", ("box",)), "RGB", False

    return known_metadata(hydet.compose(*overrides), Model(), **options)


def test_coco_has_its_category_ids():
    metadata = metadata_of("data=coco_instance")
    ids = dict(zip(metadata.thing_classes, metadata.thing_ids, strict=True))
    assert len(ids) == 80 and ids["person"] == 1 and ids["stop sign"] == 13 and ids["toothbrush"] == 90
    assert metadata.stuff_classes == () and metadata.name == "coco_instance"


def test_panoptic_coco_has_its_stuff_ids():
    metadata = metadata_of("data=coco_panoptic", tasks=("box", "mask", "semantic", "panoptic"))
    ids = dict(zip(metadata.stuff_classes, metadata.stuff_ids, strict=True))
    assert len(ids) == 54 and ids["things"] == 0 and ids["banner"] == 92 and ids["rug-merged"] == 200
    assert ids["tent"] == 166 and ids["water-other"] == 178


def test_people_have_keypoints_with_pairs_tolerances_and_skeleton():
    metadata = metadata_of("data=coco_keypoint", tasks=("box", "keypoints"))
    assert metadata.thing_classes == ("person",) and metadata.num_keypoints == 17
    assert metadata.keypoint_sigmas[0] == 0.026 and ("left_eye", "right_eye") in metadata.keypoint_flip_pairs
    assert len(metadata.keypoint_skeleton) == 19 and ("left_knee", "left_hip") in metadata.keypoint_skeleton


def test_other_class_names_are_numbered():
    metadata = metadata_of("data=coco_instance", "data.class_names=[cat,dog]")
    assert metadata.thing_classes == ("cat", "dog") and metadata.thing_ids == (1, 2)


def test_given_names_replace_those_of_the_data():
    metadata = metadata_of("data=coco_instance", class_names=[f"c{i}" for i in range(80)])
    assert metadata.thing_classes[0] == "c0" and metadata.thing_ids[-1] == 90


def test_lvis_has_numbered_classes_without_its_annotation_file():
    metadata = metadata_of("experiment=LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x")
    assert metadata.num_classes == 1203 and metadata.thing_classes[-1] == "class 1203"


def test_the_annotation_file_has_the_names_if_the_config_has_none(coco_folder):
    json, images = coco_folder / "annotations" / "instances_val.json", coco_folder / "val"
    files = [f"data.val.json={json}", f"data.val.images={images}"]
    metadata = metadata_of("data=coco_instance", "data.class_names=null", "num_classes=3", *files)
    assert metadata.thing_classes == ("ellipse", "rectangle", "triangle")
