import numpy as np
import pytest
import torch

from hydet.data import CocoDataset, DataError, InputMapper, RandomHorizontalFlip, ShapesDataset, write_coco


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
