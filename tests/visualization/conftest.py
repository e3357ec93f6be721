from types import SimpleNamespace

import pytest
import torch

from hydet.data import Record
from hydet.structures import Boxes, Instances

METADATA = SimpleNamespace(
    thing_classes=("cat", "dog"),
    stuff_classes=("things", "sky"),
    palette=((255, 0, 0), (0, 0, 255)),
    keypoint_names=("nose", "tail"),
    keypoint_skeleton=(("nose", "tail"),),
)
SQUARE = torch.tensor([20.0, 20, 60, 20, 60, 60, 20, 60]).numpy()


def make_gray(height=80, width=120):
    return torch.full((3, height, width), 127, dtype=torch.uint8)


def make_predictions(n=2, size=(80, 120), **fields):
    boxes = torch.tensor([[20.0, 20, 60, 60], [70, 30, 110, 70], [5, 5, 9, 9]])[:n]
    return Instances(
        size,
        pred_boxes=Boxes(boxes),
        pred_classes=torch.arange(n) % 2,
        scores=torch.linspace(0.9, 0.6, n),
        **fields,
    )


def make_record(**fields):
    """Make a record of a polygon, a crowd region as a run-length code, and an object without a region."""
    code = {"size": [80, 120], "counts": [80 * 70 + 30, 40, 80 * 50 - 70]}
    values = {
        "image": make_gray(),
        "image_id": 1,
        "file_name": "a.png",
        "height": 80,
        "width": 120,
        "boxes": torch.tensor([[20.0, 20, 60, 60], [70, 30, 71, 70], [90, 10, 110, 30]]),
        "classes": torch.tensor([0, 1, 1]),
        "iscrowd": torch.tensor([False, True, False]),
        "annotation_ids": torch.arange(3),
        "segments": [[SQUARE], code, None],
        "keypoints": torch.tensor([[[30.0, 30, 2], [50, 50, 1]]] * 3),
    }
    return Record(**(values | fields))


def changed_pixels(drawn, image):
    return (drawn != image).any(dim=0)


@pytest.fixture
def gray():
    return make_gray()
