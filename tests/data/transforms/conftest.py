import pytest
import torch
from torchvision import tv_tensors


@pytest.fixture
def make_inputs():
    """Make one input of each kind, of an image of 40 x 60 pixels; ``masks[0]`` fills ``boxes[0]``."""

    def make(height=40, width=60):
        boxes = torch.tensor([[5.0, 4.0, 25.0, 30.0], [0.0, 0.0, 60.0, 40.0]])
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        masks[0, 4:30, 5:25] = 1
        masks[1] = 1
        size = (height, width)
        labels = torch.arange(height * width).reshape(height, width).remainder(7).byte()
        return {
            "image": tv_tensors.Image(torch.randint(0, 256, (3, height, width), dtype=torch.uint8)),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "rotated": tv_tensors.BoundingBoxes(
                torch.tensor([[20.0, 15.0, 10.0, 6.0, 30.0]]), format="CXCYWHR", canvas_size=size
            ),
            "masks": tv_tensors.Mask(masks),
            "points": tv_tensors.KeyPoints(torch.tensor([[5.0, 4.0], [25.0, 30.0]]), canvas_size=size),
            "labels": tv_tensors.Mask(labels),
        }

    return make


@pytest.fixture
def bounds_of_mask():
    """Return the integer xyxy bounds of a mask."""

    def bounds(mask):
        y, x = mask.nonzero(as_tuple=True)
        return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]

    return bounds
