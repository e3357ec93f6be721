from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hydet.modeling import BaseMaskRCNNHead
from hydet.modeling.roi_heads.checks import (
    check_box_predictor,
    check_given_boxes,
    check_mask_head,
)
from hydet.structures import Boxes, Instances


class MaskHead(BaseMaskRCNNHead):
    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes = num_classes

    def layers(self, x):
        return x


def test_box_predictor_with_a_different_number_of_classes_raises():
    check_box_predictor(SimpleNamespace(num_classes=3), 3)
    with pytest.raises(ValueError, match="num_classes is 3, but box_predictor has 7 classes"):
        check_box_predictor(SimpleNamespace(num_classes=7), 3)


@pytest.mark.parametrize("head", [MaskHead(3), MaskHead(1), MaskHead(), nn.Identity()])
def test_mask_heads_with_fitting_or_undeclared_classes_are_accepted(head):
    check_mask_head(head, 3)


def test_mask_head_with_a_different_number_of_classes_raises():
    with pytest.raises(ValueError, match="mask_head has 7 classes"):
        check_mask_head(MaskHead(7), 3)


def test_given_boxes_without_a_field_raise():
    boxes = Boxes(torch.rand(2, 4))
    complete = Instances((8, 8), pred_boxes=boxes, pred_classes=torch.zeros(2).long())
    check_given_boxes([complete])
    with pytest.raises(ValueError, match=r"image 1 lacks \['pred_classes'\]"):
        check_given_boxes([complete, Instances((8, 8), pred_boxes=boxes)])
