import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from hydet.data import ShapesDataset
from hydet.data.shapes.rough_proposals import draw_rough_proposals


@pytest.mark.parametrize("num_objects", [0, 1, 5])
@pytest.mark.parametrize("num_proposals", [0, 3, 100])
def test_proposals_lie_inside_the_image_in_descending_order(num_objects, num_proposals):
    boxes = np.tile(np.array([[10, 20, 40, 44]], dtype=np.float32), (num_objects, 1))
    proposals = draw_rough_proposals(np.random.default_rng(0), boxes, 48, 64, num_proposals)
    x1, y1, x2, y2 = proposals.boxes.unbind(1)
    assert len(proposals.boxes) == num_proposals
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= 64) & (y1 >= 0) & (y1 <= y2) & (y2 <= 48)).all()
    assert (proposals.objectness_logits.diff() < 0).all()


def test_most_objects_have_a_proposal_that_overlaps_by_more_than_half():
    dataset = ShapesDataset(num_images=20, num_proposals=100)
    best = [
        box_iou(r.boxes, r.proposals.boxes).amax(dim=1)[~r.iscrowd]
        for r in (dataset[i] for i in range(20))
        if len(r)
    ]
    assert (torch.cat(best) > 0.5).float().mean() > 0.9


def test_proposals_depend_on_the_seed_and_the_index_alone():
    first, second = (ShapesDataset(num_images=2, seed=1, num_proposals=10)[1].proposals for _ in range(2))
    assert torch.equal(first.boxes, second.boxes)
    assert ShapesDataset(num_images=2)[1].proposals is None
