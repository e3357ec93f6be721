import numpy as np
import pytest
import torch

from hydet.data import Metadata, RandomCrop, Record

H, W = 30, 40  # size of the image of `make_record`


def square(x1, y1, x2, y2):
    """Return the region of a rectangle, as one polygon."""
    return [np.array([x1, y1, x2, y1, x2, y2, x1, y2], dtype=np.float64)]


def run_length_code(mask):
    flat = mask.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": lengths if flat[0] == 0 else [0, *lengths]}


@pytest.fixture
def make_record():
    """Make a record of a polygon, a run-length code and a crowd region, with all kinds of labels."""

    def make(**changes):
        mask = np.zeros((H, W), dtype=np.uint8)
        mask[10:30, 20:40] = 1
        values = {
            "image": torch.arange(3 * H * W).reshape(3, H, W).to(torch.uint8),
            "image_id": 7,
            "file_name": "a.png",
            "height": H,
            "width": W,
            "boxes": torch.tensor([[2.0, 3, 12, 13], [20, 10, 40, 30], [0, 0, 5, 5]]),
            "classes": torch.tensor([4, 2, 1]),
            "iscrowd": torch.tensor([False, False, True]),
            "annotation_ids": torch.tensor([1, 2, 3]),
            "segments": [square(2, 3, 12, 13), run_length_code(mask), square(0, 0, 5, 5)],
            "keypoints": torch.tensor(
                [[[3.0, 4, 2], [11, 4, 1]], [[21, 11, 2], [39, 11, 2]], [[0, 0, 0], [0, 0, 0]]]
            ),
            "rotated_boxes": torch.tensor([[7.0, 8, 10, 10, 0], [30, 20, 20, 20, 15], [2, 2, 5, 5, 0]]),
            "sem_seg": torch.zeros(H, W, dtype=torch.uint8),
            "metadata": Metadata(keypoint_names=("left", "right"), keypoint_flip_pairs=(("left", "right"),)),
        }
        return Record(**(values | changes))

    return make


@pytest.fixture
def make_crop():
    """Make a crop with a fixed window."""

    class WindowCrop(RandomCrop):
        def __init__(self, top, left, height, width):
            super().__init__(size=(1, 1))
            self.window = {"top": top, "left": left, "size": (height, width)}

        def make_params(self, flat_inputs):
            return self.window

    return WindowCrop
