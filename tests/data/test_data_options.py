"""Options of ``conf/data`` that read files, on small generated files in the published layout."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import hydet
from hydet.config import ConfigError
from hydet.data import InputMapper
from hydet.data.coco.panoptic import ids_to_rgb

H, W = 12, 16
SQUARE = [[2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]]


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((H, W, 3), 90, dtype=np.uint8)).save(path)


def write(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def image(image_id, name=None, **others):
    return {
        "id": image_id,
        "height": H,
        "width": W,
        **({} if name is None else {"file_name": name}),
        **others,
    }


def square(annotation_id, image_id, category, **others):
    defaults = {"bbox": [2, 3, 6, 6], "area": 36, "iscrowd": 0, "segmentation": SQUARE}
    return {"id": annotation_id, "image_id": image_id, "category_id": category} | defaults | others


def option(name, root, *changes, split="train"):
    cfg = hydet.compose(f"data={name}", f"data.root={root}", *changes)
    return cfg, hydet.instantiate(cfg.data[split])


@pytest.fixture
def panoptic(tmp_path):
    """A folder with one image of a person, a dog, sky and grass, of which a part is unlabeled."""
    things = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    stuff = [{"id": 187, "name": "sky-other-merged"}, {"id": 193, "name": "grass-merged"}]
    ids = np.zeros((H, W), dtype=np.int32)
    ids[:4], ids[6:], ids[3:9, 2:8], ids[8:10, 10:] = 70000, 300, 5, 9
    segments = [
        {"id": 70000, "category_id": 187, "area": int((ids == 70000).sum()), "iscrowd": 0},
        {"id": 300, "category_id": 193, "area": int((ids == 300).sum()), "iscrowd": 0},
        {"id": 5, "category_id": 18, "area": 36, "iscrowd": 0},
        {"id": 9, "category_id": 1, "iscrowd": 1},
    ]
    for split in ("train2017", "val2017"):
        draw(tmp_path / split / "000000000042.jpg")
        write(
            tmp_path / "annotations" / f"instances_{split}.json",
            images=[image(42, "000000000042.jpg")],
            annotations=[square(1, 42, 18)],
            categories=things,
        )
        categories = [c | {"isthing": 1} for c in things] + [c | {"isthing": 0} for c in stuff]
        write(
            tmp_path / "annotations" / f"panoptic_{split}.json",
            images=[image(42, "000000000042.jpg")],
            annotations=[{"image_id": 42, "file_name": "000000000042.png", "segments_info": segments}],
            categories=categories,
        )
        path = tmp_path / "annotations" / f"panoptic_{split}" / "000000000042.png"
        path.parent.mkdir()
        Image.fromarray(ids_to_rgb(ids)).save(path)
    return tmp_path, ids


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_panoptic(panoptic, split):
    root, ids = panoptic
    cfg, dataset = option("coco_panoptic", root, split=split)
    names = list(cfg.data.stuff_names)
    assert list(dataset.metadata.stuff_classes) == names and cfg.num_stuff_classes == 54
    assert list(dataset.metadata.thing_classes) == list(cfg.data.class_names)
    record = dataset[0]
    sky, grass = names.index("sky-other-merged"), names.index("grass-merged")
    expected = np.select([ids == 70000, ids == 300, ids > 0], [sky, grass, 0], default=255)
    assert record.sem_seg.tolist() == expected.tolist() and sorted(set(expected.flat)) == [0, sky, grass, 255]
    assert record.panoptic_seg.tolist() == ids.tolist()
    assert [(s["category_id"], s["isthing"], s["iscrowd"], s["area"]) for s in record.segments_info] == [
        (sky, False, False, int((ids == 70000).sum())),
        (grass, False, False, int((ids == 300).sum())),
        (16, True, False, 36),
        (0, True, True, 12),
    ]
    assert record.classes.tolist() == [16] and cfg.data.class_names[16] == "dog"
    ids_of = dict(zip(names, dataset.metadata.stuff_ids))
    assert ids_of["sky-other-merged"] == 187 and len(set(ids_of.values())) == 54
    out = InputMapper(training=split == "train", sem_seg=True)(record)
    assert out["sem_seg"].max() == 255 and len(out["instances"]) == 1


def test_stuff_names_come_from_the_file_by_default(panoptic):
    root, _ = panoptic
    _, dataset = option("coco_panoptic", root, "data.stuff_names=null")
    assert dataset.metadata.stuff_classes == ("things", "sky-other-merged", "grass-merged")
    assert dataset.metadata.stuff_ids == (0, 187, 193)
    assert dataset[0].sem_seg.unique().tolist() == [0, 1, 2, 255]


def test_stuff_outside_the_names_is_refused(panoptic):
    root, _ = panoptic
    with pytest.raises(
        ConfigError, match=r"panoptic_train2017\.json: category 'grass-merged' is stuff, but is not one"
    ):
        option("coco_panoptic", root, "data.stuff_names=[things,sky-other-merged]")


def test_segments_of_unknown_categories_are_refused_or_dropped(panoptic):
    root, _ = panoptic
    path = root / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["segments_info"][1]["category_id"] = 999
    path.write_text(json.dumps(content), encoding="utf-8")
    message = r"segment 300 of 000000000042\.png: there is no category with id 999"
    with pytest.raises(ConfigError, match=r"panoptic_train2017\.json: " + message):
        option("coco_panoptic", root, "data.policy=raise")
    _, dataset = option("coco_panoptic", root)
    assert dataset.report().counts == {("unknown_category", "dropped"): 1}
    assert [segment["id"] for segment in dataset[0].segments_info] == [70000, 5, 9]


def test_lvis_v1(tmp_path):
    """Images have only ``coco_url``, and the classes come from the file."""
    url = "http://images.cocodataset.org/train2017/{:012d}.jpg"
    for number in (7, 9, 11):
        draw(tmp_path / "train2017" / f"{number:012d}.jpg")
    lists = {"neg_category_ids": [2, 3], "not_exhaustive_category_ids": []}
    write(
        tmp_path / "annotations" / "lvis_v1_train.json",
        images=[image(n, coco_url=url.format(n), **lists) for n in (7, 9, 11)],
        annotations=[square(1, 7, 3), square(2, 7, 1), square(3, 11, 1)],
        categories=[
            {"id": i, "name": name, "frequency": f, "image_count": 1}
            for i, name, f in ((1, "aerosol_can", "c"), (2, "air_conditioner", "r"), (3, "airplane", "f"))
        ],
    )
    _, dataset = option("lvis_v1", tmp_path)
    assert dataset.metadata.thing_classes == ("aerosol_can", "air_conditioner", "airplane")
    assert dataset.image_ids.tolist() == [7, 11], "training leaves out images without objects"
    record = dataset[0]
    assert record.file_name == "train2017/000000000007.jpg" and record.classes.tolist() == [2, 0]
    assert record.bitmasks().sum((1, 2)).tolist() == [36, 36]
    assert dataset.classes_of_images() == [[0, 2], [0]] and not dataset.report()
    coco = dataset.to_coco()
    assert all({key: im[key] for key in lists} == lists for im in coco["images"])
    assert [c["frequency"] for c in coco["categories"]] == ["c", "r", "f"]


def test_voc(tmp_path):
    """VOC has only boxes; difficult objects are used in training, as published, and ignored in evaluation."""
    names = ["VOC2007/JPEGImages/000005.jpg", "VOC2012/JPEGImages/2008_000002.jpg"]
    for name in names:
        draw(tmp_path / name)
    write(
        tmp_path / "annotations" / "trainval_07_12.json",
        images=[image(i, name) for i, name in enumerate(names)],
        annotations=[
            square(1, 0, 9),
            square(2, 0, 15, ignore=1),
            square(3, 1, 15, difficult=1, segmentation=[]),
        ],
        categories=[{"id": 9, "name": "chair"}, {"id": 15, "name": "person"}],
    )
    cfg, dataset = option("voc", tmp_path)
    assert list(dataset.metadata.thing_classes) == list(cfg.data.class_names) and cfg.num_classes == 20
    first, second = dataset[0], dataset[1]
    assert [cfg.data.class_names[c] for c in first.classes.tolist()] == ["chair", "person"]
    assert first.boxes.tolist() == [[2, 3, 8, 9]] * 2 and first.segments is None
    assert second.file_name == names[1] and not dataset.report()
    assert [a.get("ignore", 0) for a in dataset.to_coco()["annotations"]] == [0, 1, 1]
    assert len(InputMapper(training=True, mask_format=None)(first)["instances"]) == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes(tmp_path, split):
    """Images are in one folder per city; groups are crowds."""
    name = "aachen/aachen_000000_000019_leftImg8bit.png"
    empty = "aachen/aachen_000001_000019_leftImg8bit.png"
    for image_name in (name, empty):
        draw(tmp_path / "leftImg8bit" / split / image_name)
    group = np.zeros((H, W), dtype=bool)
    group[6:, 8:] = True
    runs = np.diff([0, *np.flatnonzero(np.diff(group.reshape(-1, order="F"))) + 1, H * W]).tolist()
    write(
        tmp_path / "annotations" / f"instances_{split}.json",
        images=[image(3, name), image(4, empty)],
        annotations=[
            square(1, 3, 26),
            square(
                2,
                3,
                24,
                iscrowd=1,
                bbox=[8, 6, 8, 6],
                area=48,
                segmentation={"size": [H, W], "counts": runs},
            ),
        ],
        categories=[{"id": 24, "name": "person"}, {"id": 26, "name": "car"}],
    )
    cfg, dataset = option("cityscapes", tmp_path, split=split)
    assert cfg.num_classes == 8 and len(dataset) == (1 if split == "train" else 2)
    record = dataset[0]
    assert record.file_name == name and record.iscrowd.tolist() == [False, True]
    assert [cfg.data.class_names[c] for c in record.classes.tolist()] == ["car", "person"]
    assert torch.equal(record.bitmasks()[1], torch.from_numpy(group)) and not dataset.report()
    assert len(InputMapper(training=True)(record)["instances"]) == 1


def test_coco_rotated(tmp_path):
    """Polygons of four points are rotated boxes, even if other objects have other polygons."""
    draw(tmp_path / "images" / "a.png")
    diamond = [[8.0, 2.0, 13.0, 7.0, 8.0, 12.0, 3.0, 7.0]]
    objects = [
        square(1, 5, 1, segmentation=diamond, bbox=[3, 2, 10, 10]),
        square(2, 5, 1, segmentation=[SQUARE[0][:6]]),
    ]
    write(
        tmp_path / "a.json",
        images=[image(5, "a.png")],
        annotations=objects,
        categories=[{"id": 1, "name": "ship"}],
    )
    _, dataset = option(
        "coco_rotated",
        tmp_path,
        f"data.train.json={tmp_path / 'a.json'}",
        f"data.train.images={tmp_path / 'images'}",
    )
    expected = torch.tensor([[8, 7, 50**0.5, 50**0.5, -45], [5, 6, 6, 6, 0]])
    torch.testing.assert_close(dataset[0].rotated_boxes, expected)
    instances = InputMapper(training=True, rotated=True, mask_format=None)(dataset[0])["instances"]
    assert instances.gt_boxes.tensor.shape == (2, 5) and dataset.metadata.thing_classes == ("ship",)
