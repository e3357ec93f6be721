import pytest
import torch

from hydet.modeling import DefaultAnchorGenerator
from hydet.structures import Boxes


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_losses_of_tiny_objects_are_finite(retinanet, dense_batch, kind):
    batch = dense_batch((2, 0))
    batch[0]["instances"].gt_boxes = Boxes([[10.0, 10, 11, 11], [30, 30, 30.5, 60]])
    assert all(value.isfinite() for value in retinanet(box_reg_loss_type=kind)(batch).values())


def test_anchors_get_the_class_and_box_of_their_object(retinanet, dense_batch):
    model = retinanet()
    anchors = model.anchor_generator([torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)])
    batch = dense_batch((1, 0))
    gt = batch[0]["instances"]
    gt.gt_boxes = Boxes(anchors[0].tensor[[30]])
    labels, boxes = model.label_anchors(anchors, [gt, batch[1]["instances"]])
    assert labels[0][30] == gt.gt_classes[0] and torch.equal(boxes[0][30], gt.gt_boxes.tensor[0])
    assert (labels[1] == model.num_classes).all() and not boxes[1].any()


def test_head_with_another_number_of_anchors_raises(retinanet):
    generator = DefaultAnchorGenerator(sizes=[[8]], aspect_ratios=[[1.0]], strides=[8, 16])
    with pytest.raises(ValueError, match="3 anchors per cell"):
        retinanet(anchor_generator=generator)
