import json

import numpy as np
import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper, RandomHorizontalFlip, ShapesDataset, write_coco
from hydet.data.shapes.__main__ import main


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    shapes = ShapesDataset(
        num_images=12,
        seed=5,
        image_size=(64, 64),
        max_image_size=(80, 96),
        crowd_fraction=0.5,
        empty_fraction=0.2,
    )
    folder = tmp_path_factory.mktemp("coco")
    return shapes, folder, write_coco(shapes, folder, split="some")


def test_reading_gives_what_was_written(written):
    shapes, _, paths = written
    read = CocoDataset(
        json=paths["instances"],
        images=paths["images"],
        panoptic_json=paths["panoptic"],
        panoptic_images=paths["panoptic_images"],
        policy="raise",
    )
    np.testing.assert_allclose(read.aspect_ratios, shapes.aspect_ratios)
    for name in (
        "thing_classes",
        "thing_ids",
        "keypoint_names",
        "keypoint_flip_pairs",
        "stuff_classes",
        "stuff_ids",
    ):
        assert getattr(read.metadata, name) == getattr(shapes.metadata, name), name
    for i in range(len(shapes)):
        a, b = read[i], shapes[i]
        for name, value in vars(b).items():
            if name in ("segments", "masks", "metadata"):
                continue
            other = getattr(a, name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
        assert torch.equal(a.bitmasks(), b.masks)
    for a, b in zip(read.to_coco()["annotations"], shapes.to_coco()["annotations"], strict=True):
        a.pop("rotated_bbox"), b.pop("rotated_bbox")
        assert a == b


def test_both_train_alike(written):
    shapes, _, paths = written
    read = CocoDataset(json=paths["instances"], images=paths["images"])
    mapper = InputMapper(
        training=True, transforms=[RandomHorizontalFlip(p=1.0)], keypoints=True, mask_format=None
    )
    for i in range(len(shapes)):
        a, b = (mapper(d[i], 0)["instances"].get_fields() for d in (read, shapes))
        assert all(torch.equal(getattr(a[k], "tensor", a[k]), getattr(b[k], "tensor", b[k])) for k in a)


def test_semantic_maps(written):
    shapes, _, paths = written
    read = CocoDataset(
        json=paths["instances"],
        images=paths["images"],
        sem_seg=paths["semantic"],
        stuff_class_names=shapes.metadata.stuff_classes,
    )
    assert all(torch.equal(read[i].sem_seg, shapes[i].sem_seg) for i in range(len(shapes)))
    with pytest.raises(DataError, match=r"000000\.png"):
        CocoDataset(json=paths["instances"], images=paths["images"], sem_seg=paths["images"] / "nowhere")[0]


def test_panoptic_files_of_another_kind(written, tmp_path):
    _, _, paths = written
    arguments = {
        "json": paths["instances"],
        "images": paths["images"],
        "panoptic_images": paths["panoptic_images"],
    }
    with pytest.raises(DataError, match="panoptic"):
        CocoDataset(**arguments, panoptic_json=paths["instances"])
    content = json.loads(paths["panoptic"].read_text())
    content["annotations"] = content["annotations"][1:]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no segments for image 1"):
        CocoDataset(**arguments, panoptic_json=tmp_path / "p.json")[0]


def test_the_command(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--num-images", "3", "--val-images", "2", "--image-size", "48", "48"]
    assert main(arguments) == 0
    assert "data=coco_instance" in capsys.readouterr().out
    for split, count in (("train", 3), ("val", 2)):
        path = tmp_path / "annotations" / f"instances_{split}.json"
        assert len(CocoDataset(json=path, images=tmp_path / split, policy="raise")) == count
    assert not list(tmp_path.rglob("*.part"))


def test_the_command_with_wrong_arguments(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--num-images", "3", "--image-size", "8", "8"]) == 2
    assert "too large" in capsys.readouterr().err
