import json

import numpy as np
import pytest
import torch

from hydet.data import (
    CocoDataset,
    DataError,
    InputMapper,
    Metadata,
    RandomHorizontalFlip,
    Record,
    ShapesDataset,
    write_coco,
)


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


def test_reading_inverts_writing(written):
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
        a.pop("rotated_bbox"), b.pop("rotated_bbox")  # float32 in one, rounded in the other
        assert a == b


def test_model_inputs_are_equal(written):
    shapes, _, paths = written
    read = CocoDataset(json=paths["instances"], images=paths["images"])
    mapper = InputMapper(
        training=True, transforms=[RandomHorizontalFlip(p=1.0)], keypoints=True, mask_format=None
    )
    for i in range(len(shapes)):
        a, b = (mapper(d[i], 0)["instances"].get_fields() for d in (read, shapes))
        assert all(torch.equal(getattr(a[k], "tensor", a[k]), getattr(b[k], "tensor", b[k])) for k in a)


def test_semantic_label_maps_are_equal(written):
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


def test_progress_counts_images_and_no_temporary_file_is_left(tmp_path):
    counts = []
    write_coco(ShapesDataset(num_images=3, image_size=(48, 48)), tmp_path, progress=counts.append)
    assert counts == [1, 2, 3]
    assert not list(tmp_path.rglob("*.part"))


def test_minimal_dataset_is_written(tmp_path):
    shapes = ShapesDataset(num_images=3, image_size=(48, 48))

    class Minimal:
        metadata = shapes.metadata

        def __len__(self):
            return len(shapes)

        def __getitem__(self, index):
            return shapes[index]

    paths = write_coco(Minimal(), tmp_path)
    read = CocoDataset(json=paths["instances"], images=paths["images"], policy="raise")
    for a, b in zip(read, shapes, strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.bitmasks(), b.masks)


class _Records:
    """Records with given file names; the image of record ``i`` has the gray value ``i``."""

    metadata = Metadata(thing_classes=("dog",), stuff_classes=("things", "sky"))

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        segments = [
            {"id": 1, "category_id": 0, "isthing": True, "iscrowd": False, "area": 64},
            {"id": 2, "category_id": 1, "isthing": False, "iscrowd": False, "area": 0},
        ]
        return Record(
            image=torch.full((3, 8, 8), index, dtype=torch.uint8),
            image_id=index,
            file_name=self.names[index],
            height=8,
            width=8,
            boxes=torch.zeros(0, 4),
            classes=torch.zeros(0, dtype=torch.int64),
            iscrowd=torch.zeros(0, dtype=torch.bool),
            annotation_ids=torch.zeros(0, dtype=torch.int64),
            panoptic_seg=torch.ones(8, 8, dtype=torch.int32),
            segments_info=segments,
            sem_seg=torch.full((8, 8), 300 * index, dtype=torch.int64),
        )


@pytest.mark.filterwarnings("ignore:_Records does not define")
def test_file_names_stay_in_the_folder_and_differ(tmp_path):
    names = ["a.jpg", "a.png", "../../b.jpg", str(tmp_path / "c.jpg"), "d\\e.jpg"]
    paths = write_coco(_Records(names), tmp_path / "out" / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x"]
    read = CocoDataset(**{"json": paths["instances"], "images": paths["images"]}, policy="raise")
    assert [int(record.image[0, 0, 0]) for record in read] == list(range(len(names)))


@pytest.mark.filterwarnings("ignore:_Records does not define")
def test_segments_without_pixels_are_left_out(tmp_path):
    paths = write_coco(_Records(["a.jpg"]), tmp_path)
    content = json.loads(paths["panoptic"].read_text(encoding="utf-8"))
    assert [s["id"] for s in content["annotations"][0]["segments_info"]] == [1]


@pytest.mark.filterwarnings("ignore:_Records does not define")
def test_labels_above_255_are_kept(tmp_path):
    paths = write_coco(_Records(["a.jpg", "b.jpg"]), tmp_path)
    read = CocoDataset(json=paths["instances"], images=paths["images"], sem_seg=paths["semantic"])
    assert [int(record.sem_seg.max()) for record in read] == [0, 300]
