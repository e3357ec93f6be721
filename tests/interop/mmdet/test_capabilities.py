"""Capabilities of detectors, read from stubs of mmdet's heads."""

import pytest
from torch import nn

from hydet.interop.mmdet.capabilities import inspect_detector


class Part(nn.Module):
    """A module with arbitrary attributes."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class RPNHead(Part):
    """Named like mmdet's class, which ``inspect_detector`` recognizes."""


def test_detector_without_attributes_of_mmdet_predicts_boxes():
    capabilities = inspect_detector(nn.Identity())
    assert capabilities.tasks == ("box",) and capabilities.has_boxes
    assert capabilities.num_classes is None and not capabilities.needs_masks


def test_one_stage_detector():
    capabilities = inspect_detector(Part(bbox_head=Part(num_classes=7)))
    assert capabilities.tasks == ("box",) and capabilities.num_classes == 7


def test_two_stage_detector_with_masks():
    roi_head = Part(bbox_head=nn.ModuleList([Part(num_classes=7)] * 3), with_semantic=True)
    capabilities = inspect_detector(Part(roi_head=roi_head, with_mask=True, with_bbox=True))
    assert capabilities.tasks == ("box", "mask") and capabilities.num_classes == 7
    assert capabilities.needs_masks and capabilities.needs_sem_seg


def test_detector_without_boxes():
    capabilities = inspect_detector(Part(mask_head=Part(num_classes=4), with_mask=True, with_bbox=False))
    assert capabilities.tasks == ("box", "mask") and not capabilities.has_boxes
    assert capabilities.num_classes == 4


def test_rpn():
    capabilities = inspect_detector(Part(bbox_head=RPNHead(num_classes=1)))
    assert capabilities.tasks == ("proposals",) and capabilities.num_classes is None


@pytest.mark.parametrize(
    ("settings", "roi_head", "tasks"),
    [
        (None, None, ("panoptic",)),
        ({"instance_on": True}, None, ("panoptic", "box", "mask")),
        ({"panoptic_on": False, "instance_on": True}, None, ("box", "mask")),
        ({"instance_on": True}, nn.Identity(), ("panoptic",)),
    ],
)
def test_panoptic_detector(settings, roi_head, tasks):
    fusion_head = Part(num_things_classes=3, num_stuff_classes=2, test_cfg=settings)
    capabilities = inspect_detector(Part(panoptic_fusion_head=fusion_head, roi_head=roi_head))
    assert capabilities.tasks == tasks
    assert (capabilities.num_things, capabilities.num_stuff, capabilities.num_classes) == (3, 2, 3)
    assert capabilities.needs_masks and capabilities.needs_sem_seg and not capabilities.has_boxes
