import pytest
import torch

from hydet.modeling.selection.suppression import (
    clip_to_images,
    select_boxes,
    suppress,
)
from hydet.structures import Boxes, RotatedBoxes


def candidates(images, count):
    corner = 60 * torch.rand(images, count, 2) - 20
    boxes = torch.cat([corner, corner + 2 + 30 * torch.rand(images, count, 2)], dim=2)
    return (
        boxes,
        torch.randn(images, count),
        torch.randint(0, 3, (images, count)),
        torch.rand(images, count) > 0.2,
    )


def test_invalid_candidates_are_neither_selected_nor_suppress():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    valid = torch.tensor([[False, True, True]])
    order, counts = suppress(
        boxes, torch.tensor([[3.0, 2, 1]]), torch.zeros(1, 3, dtype=torch.int64), valid, 0.5, -1
    )
    assert order[0, : counts[0]].tolist() == [1, 2]


def test_selected_boxes_are_gathered_and_counted():
    boxes, scores, groups, valid = candidates(3, 40)
    boxes[0, 0] = float("nan")
    valid[0, 0] = False
    selected = select_boxes(boxes, scores, groups, valid, iou_threshold=0.4, max_outputs=10)
    assert selected.boxes.shape == (3, 10, 4) and selected.boxes.isfinite().all()
    for i, count in enumerate(selected.counts.tolist()):
        index = selected.indices[i, :count]
        assert torch.equal(selected.boxes[i, :count], boxes[i, index])
        assert torch.equal(selected.scores[i, :count], scores[i, index])
        assert torch.equal(selected.groups[i, :count], groups[i, index])
        assert (selected.scores[i, :count].diff() <= 0).all()


@pytest.mark.parametrize("container", [Boxes, RotatedBoxes])
@pytest.mark.parametrize("sizes", [[(30, 40)] * 2, [(30, 40), (50, 20)]])
def test_clipping_a_batch_equals_clipping_each_image(container, sizes):
    boxes = 60 * torch.rand(2, 20, container.box_dim) - 10
    clipped = clip_to_images(boxes, sizes)
    for i, size in enumerate(sizes):
        expected = container(boxes[i])
        expected.clip(size)
        assert torch.equal(clipped[i], expected.tensor)
