import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from hydet.data import CocoDataset, DataError, InputMapper, build_evaluation_loader, build_train_loader


def test_record_metadata_and_ground_truth(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]))
    record = dataset[0]
    assert dataset.metadata.thing_classes == ("dog", "cat") and dataset.metadata.thing_ids == (3, 9)
    assert record.boxes.tolist() == [[4, 5, 14, 13]] and record.classes.tolist() == [0]
    assert (record.image_id, record.height, record.width, record.file_name) == (5, 30, 40, "a.png")
    assert record.bitmasks().sum() == 80 and record.annotation_ids.tolist() == [1]
    assert str(dataset.report()) == "" and not dataset.report()
    assert dataset.aspect_ratios.tolist() == [40 / 30]
    coco = dataset.to_coco()
    assert coco["annotations"][0]["category_id"] == 3 and coco["annotations"][0]["bbox"] == [4, 5, 10, 8]


def test_images_without_objects(coco_folder, annotation):
    crowd_only = coco_folder([annotation(iscrowd=1)])
    assert len(CocoDataset(**crowd_only)) == 1
    with pytest.raises(DataError, match="no image is left"):
        CocoDataset(**crowd_only, keep_empty=False)
    record = CocoDataset(**coco_folder([]))[0]
    assert len(record) == 0 and record.boxes.shape == (0, 4)
    assert len(InputMapper(training=True, mask_format=None)(record)["instances"]) == 0


def test_min_keypoints_counts_all_objects_of_an_image(coco_folder, annotation):
    names = ["a.png", "b.png", "c.png"]
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)]
    arguments = coco_folder([annotation()])
    for name in names[1:]:
        shutil.copy(arguments["images"] / "a.png", arguments["images"] / name)
    categories = [{"id": 3, "name": "dog", "keypoints": ["nose", "tail"]}]
    annotations = [
        annotation(
            id=1, image_id=0, keypoints=[5, 6, 2, 0, 0, 0]
        ),  # one labeled keypoint on each of two objects
        annotation(id=2, image_id=0, keypoints=[0, 0, 0, 7, 8, 1]),
        annotation(id=3, image_id=1, keypoints=[0, 0, 0, 7, 8, 1]),
        annotation(id=4, image_id=2, keypoints=[0, 0, 0, 0, 0, 0]),
    ]
    arguments = coco_folder(annotations, images=images, categories=categories)
    names_by_minimum = [[r.file_name for r in CocoDataset(**arguments, min_keypoints=n)] for n in range(3)]
    assert names_by_minimum == [names, names[:2], names[:1]]
    with pytest.raises(DataError, match="no image is left"):
        CocoDataset(**arguments, min_keypoints=3)
    with pytest.raises(DataError, match="min_keypoints=1, but the dataset has no keypoints"):
        CocoDataset(**arguments, with_keypoints=False, min_keypoints=1)


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def test_truncated_image_is_raised_replaced_or_skipped(coco_folder, annotation):
    images = [{"id": i, "file_name": n, "width": 40, "height": 30} for i, n in ((5, "a.png"), (6, "b.png"))]
    arguments = coco_folder([annotation()])
    Image.open(arguments["images"] / "a.png").save(arguments["images"] / "b.png")
    arguments = coco_folder([annotation(), annotation(id=2, image_id=6)], images=images)
    truncate(arguments["images"] / "b.png")
    mapper = InputMapper(training=True)
    for policy in ("drop", "raise"):
        dataset = CocoDataset(**arguments, policy=policy)
        assert len(dataset) == 2
        with pytest.raises(DataError, match=r"b\.png") as error:
            dataset[1]
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"b\.png"):
        list(build_evaluation_loader(dataset, mapper))
    strict = iter(build_train_loader(dataset, mapper, batch_size=2))
    with pytest.raises(DataError, match=r"b\.png"):
        next(strict)
    tolerant = CocoDataset(**arguments, policy="drop")
    with pytest.warns(UserWarning, match=r"b\.png"):
        batch = next(iter(build_train_loader(tolerant, mapper, batch_size=2)))
    assert [x["image_id"] for x in batch] == [5, 5]
    assert tolerant.report().count("unreadable_image") == 1
    tolerant = CocoDataset(**arguments, policy="drop")
    with pytest.warns(UserWarning, match=r"b\.png"):
        (batch,) = build_evaluation_loader(tolerant, mapper)
    assert [x["image_id"] for x in batch] == [5]
    assert tolerant.report().count("unreadable_image") == 1
    assert CocoDataset(**arguments).check().count("unreadable_image") == 1


def write_rotated_jpeg(path, orientation):
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:10, :10, 0] = 255  # red in the top left corner of the stored image
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


def test_exif_orientation(coco_folder, annotation):
    arguments = coco_folder(
        [annotation()], images=[{"id": 5, "file_name": "a.jpg", "width": 30, "height": 40}]
    )
    write_rotated_jpeg(arguments["images"] / "a.jpg", 6)  # rotates clockwise: the corner moves to the right
    dataset = CocoDataset(**arguments, policy="raise")
    image = dataset[0].image
    assert image.shape == (3, 40, 30)
    assert image[0, 3, 26] > 200 and image[0, 3, 3] < 60
    assert not dataset.report()


def test_image_is_not_rotated_if_the_json_has_the_stored_size(coco_folder, annotation):
    arguments = coco_folder(
        [annotation()], images=[{"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}]
    )
    write_rotated_jpeg(arguments["images"] / "a.jpg", 6)
    dataset = CocoDataset(**arguments, policy="drop")
    record = dataset[0]
    assert record.image.shape == (3, 30, 40) and record.image[0, 3, 3] > 200
    dataset[0]
    assert dataset.report().count("not_upright") == 1 and "a.jpg" in str(dataset.report())


def test_workers_receive_the_dataset(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]))
    clone = pickle.loads(pickle.dumps(dataset))
    assert clone[0].boxes.tolist() == dataset[0].boxes.tolist() and clone.metadata == dataset.metadata
    (batch,) = build_evaluation_loader(dataset, InputMapper(training=False), num_workers=1)
    assert batch[0]["image_id"] == 5


def test_classes_of_images(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation(), annotation(id=2, category_id=9, iscrowd=1)]))
    assert dataset.classes_of_images() == [[0, 1]]


def test_unknown_policy_is_refused(coco_folder):
    with pytest.raises(ValueError, match="policy must be one of"):
        CocoDataset(**coco_folder(), policy="ignore")


def test_index_out_of_range(coco_folder, annotation):
    dataset = CocoDataset(**coco_folder([annotation()]))
    assert dataset[-1].image_id == 5
    with pytest.raises(IndexError, match="index 1"):
        dataset[1]


def test_settings_for_reading_images(coco_folder, annotation):
    arguments = coco_folder([annotation()])
    Image.fromarray(np.full((30, 40), 800, dtype=np.uint16)).save(arguments["images"] / "a.png")
    for value_range, expected in (("auto", 199), ("full", 3), ([700, 900], 128)):
        image = CocoDataset(**arguments, value_range=value_range)[0].image
        assert image.shape == (3, 30, 40) and image.unique().tolist() == [expected]
    with pytest.raises(DataError, match=r"a\.png: the image has 40 x 30 .* max_pixels=1000"):
        CocoDataset(**arguments, max_pixels=1000)[0]
    with pytest.raises(ValueError, match="value_range"):
        CocoDataset(**arguments, value_range="all")
