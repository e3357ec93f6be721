"""Published configurations: training and test data, and their augmentation."""

import json

import pytest
from PIL import Image
from torchvision.transforms import v2

import hydet
from hydet.data import (
    FixedSizeCrop,
    RandomCrop,
    RandomHorizontalFlip,
    ResizeShortestEdge,
    ScaleJitter,
    make_repeat_factor_sampler,
    make_shuffle_sampler,
)

# Published name of a dataset -> option of `data`, annotation file, folder of images
DATA = {
    "coco_2017_train": ("coco_instance", "annotations/instances_train2017.json", "train2017"),
    "coco_2017_val": ("coco_instance", "annotations/instances_val2017.json", "val2017"),
    "keypoints_coco_2017_train": ("coco_keypoint", "annotations/person_keypoints_train2017.json", "train2017"),
    "keypoints_coco_2017_val": ("coco_keypoint", "annotations/person_keypoints_val2017.json", "val2017"),
    "coco_2017_train_panoptic_separated": ("coco_panoptic", "annotations/instances_train2017.json", "train2017"),
    "coco_2017_val_panoptic_separated": ("coco_panoptic", "annotations/instances_val2017.json", "val2017"),
    "coco_2017_train_panoptic_stuffonly": ("coco_panoptic", "annotations/instances_train2017.json", "train2017"),
    "coco_2017_val_panoptic_stuffonly": ("coco_panoptic", "annotations/instances_val2017.json", "val2017"),
    "lvis_v0.5_train": ("lvis_v05", "annotations/lvis_v0.5_train.json", ""),
    "lvis_v0.5_val": ("lvis_v05", "annotations/lvis_v0.5_val.json", ""),
    "lvis_v1_train": ("lvis_v1", "annotations/lvis_v1_train.json", ""),
    "lvis_v1_val": ("lvis_v1", "annotations/lvis_v1_val.json", ""),
    "cityscapes_fine_instance_seg_train": (
        "cityscapes", "annotations/instances_train.json", "leftImg8bit/train",
    ),
    "cityscapes_fine_instance_seg_val": (
        "cityscapes", "annotations/instances_val.json", "leftImg8bit/val",
    ),
    "voc_2007_trainval and voc_2012_trainval": ("voc", "annotations/trainval_07_12.json", ""),
    "voc_2007_test": ("voc", "annotations/test_07.json", ""),
}  # fmt: skip


def names_of(recipe):
    """Return the published names of the training and test data."""
    if recipe.is_lazy:
        loaders = recipe.facts["dataloader"]
        return loaders["train"]["dataset"]["names"], loaders["test"]["dataset"]["names"]
    return tuple(" and ".join(recipe.settings("DATASETS")[split]) for split in ("TRAIN", "TEST"))


def test_data_are_the_published_ones(recipe):
    data = recipe.config.data
    for name, split in zip(names_of(recipe), (data.train, data.val), strict=True):
        option, annotations, images = DATA[name]
        assert data.name == option
        assert (split.json, split.images.rstrip("/")) == (
            f"{data.root}/{annotations}",
            f"{data.root}/{images}".rstrip("/"),
        )
        assert ("panoptic_json" in split) == ("panoptic" in name)
        assert "train" not in name or split.get("panoptic_json", "train").count("train")


def test_images_without_objects_are_dropped_as_published(recipe):
    train, val = recipe.config.data.train, recipe.config.data.val
    if recipe.is_lazy:
        published = recipe.facts["dataloader"]["train"]["dataset"]
        filtered, min_keypoints = published.get("filter_empty", True), published.get("min_keypoints", 0)
    else:
        filtered = recipe.settings("DATALOADER")["FILTER_EMPTY_ANNOTATIONS"]
        min_keypoints = 1 if "keypoints" in recipe.inventory.tasks else 0
    if names_of(recipe)[0].endswith("stuffonly"):
        filtered = False  # these data have no objects
    assert train.get("keep_empty", True) is not filtered
    assert train.get("min_keypoints", 0) == min_keypoints
    assert val.get("keep_empty", True) and not val.get("min_keypoints", 0)


def test_labels_are_those_that_the_published_model_learns(recipe):
    """The mapper adds the labels that the tasks of a model need."""
    if recipe.is_lazy:
        mapper = recipe.facts["dataloader"]["train"]["mapper"]
        masks, keypoints = mapper["use_instance_mask"], mapper.get("use_keypoint", False)
        channels = mapper["image_format"]
    else:
        model = recipe.settings("MODEL")
        masks, keypoints = model["MASK_ON"], model["KEYPOINT_ON"]
        channels = recipe.settings("INPUT")["FORMAT"]
    assert ("mask" in recipe.inventory.tasks) == masks
    assert ("keypoints" in recipe.inventory.tasks) == keypoints
    assert recipe.config.input_format == channels


def test_sampler_is_the_published_one(recipe):
    if recipe.is_lazy:
        published = recipe.facts["dataloader"]["train"].get("sampler")
        threshold = published["repeat_factors"]["repeat_thresh"] if published else None
    else:
        loader = recipe.settings("DATALOADER")
        assert loader["ASPECT_RATIO_GROUPING"] and loader["REPEAT_SQRT"]
        repeats = loader["SAMPLER_TRAIN"] == "RepeatFactorTrainingSampler"
        threshold = loader["REPEAT_THRESHOLD"] if repeats else None
    sampler = hydet.instantiate(recipe.config.sampler)
    expected = make_shuffle_sampler if threshold is None else make_repeat_factor_sampler
    assert sampler.func is expected
    assert sampler.keywords.get("threshold") == threshold


def test_images_are_augmented_as_published(recipe):
    augment = recipe.config.augment
    train, test = augmentations_of(recipe)
    assert [described(hydet.instantiate(t)) for t in augment.train.values() if t is not None] == train
    assert [described(hydet.instantiate(t)) for t in augment.test.values() if t is not None] == test


def augmentations_of(recipe):
    """Return the published augmentations of training and test, in order."""
    if recipe.is_lazy:
        loaders = recipe.facts["dataloader"]
        return tuple([published(a) for a in loaders[s]["mapper"]["augmentations"]] for s in ("train", "test"))
    image = recipe.settings("INPUT")
    crop = image["CROP"]
    train = [("crop", crop["TYPE"], crop["SIZE"])] if crop["ENABLED"] else []
    sides = image["MIN_SIZE_TRAIN"]
    train.append(("shorter side", sides, image["MAX_SIZE_TRAIN"], image["MIN_SIZE_TRAIN_SAMPLING"]))
    train.append(("mirrored", {"horizontal": 0.5}[image["RANDOM_FLIP"]]))
    return train, [("shorter side", [image["MIN_SIZE_TEST"]], image["MAX_SIZE_TEST"], "choice")]


def published(augmentation):
    kind = augmentation["_target_"].rpartition(".")[2]
    if kind == "RandomApply":
        inner = augmentation["tfm_or_aug"]["augs"]
        return ("perhaps", augmentation["prob"], [published(a) for a in inner])
    if kind == "ResizeShortestEdge":
        sides = augmentation["short_edge_length"]
        sides = [sides] if isinstance(sides, int) else sides
        return (
            "shorter side",
            sides,
            augmentation.get("max_size"),
            augmentation.get("sample_style", "choice"),
        )
    if kind == "ResizeScale":
        size = [augmentation["target_height"], augmentation["target_width"]]
        return ("scaled", size, augmentation["min_scale"], augmentation["max_scale"])
    if kind == "FixedSizeCrop":
        return ("window", augmentation["crop_size"], augmentation.get("pad", True))
    if kind == "RandomCrop":
        return ("crop", augmentation["crop_type"], augmentation["crop_size"])
    assert kind == "RandomFlip" and augmentation["horizontal"]
    return ("mirrored", 0.5)


def described(transform):
    match transform:
        case v2.RandomApply():
            return ("perhaps", transform.p, [described(t) for t in transform.transforms])
        case ResizeShortestEdge():
            return ("shorter side", list(transform.short), transform.max_size, transform.sampling)
        case ScaleJitter():
            return ("scaled", list(transform.size), transform.min_scale, transform.max_scale)
        case FixedSizeCrop():
            return ("window", list(transform.size), transform.pad)
        case RandomCrop():
            return ("crop", transform.mode, list(transform.size))
        case RandomHorizontalFlip():
            return ("mirrored", transform.p)
    raise AssertionError(f"no published configuration has {transform}")


def test_keypoints_change_places_as_published(recipes, tmp_path):
    recipe = next(r for r in recipes if r.is_lazy and "keypoint" in r.name)
    config = recipe.config
    (tmp_path / "a.png").parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    names = list(config.data.keypoint_names)
    person = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64,
        "keypoints": [3, 4, 2] * len(names), "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]],
    }  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [person],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }
    (tmp_path / "people.json").write_text(json.dumps(content), encoding="utf-8")
    files = {"json": str(tmp_path / "people.json"), "images": str(tmp_path)}
    dataset = hydet.instantiate({**config.data.train, **files})
    mapper = recipe.facts["dataloader"]["train"]["mapper"]
    assert list(dataset.metadata.keypoint_flip_indices) == mapper["keypoint_hflip_indices"]
    assert dataset[0].keypoints[0, 0].tolist() == [
        3.5,
        4.5,
        2.0,
    ]  # the file counts pixels, whose centers are meant


@pytest.mark.parametrize("data", ["coco_instance", "coco_keypoint", "coco_panoptic", "voc", "cityscapes"])
def test_class_names_are_as_many_as_published(data, recipes):
    """The heads' arguments are held against the facts; here, that their number comes from the names."""
    recipe = next(r for r in recipes if r.config.data.name == data)
    assert recipe.config.num_classes == len(set(recipe.config.data.class_names))
