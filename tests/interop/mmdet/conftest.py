"""Configs of small mmdet models, inputs for them, and stubs of mmdet for environments without it."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hydet.structures import BitMasks, Boxes, Instances, PolygonMasks

CLASSES = 3
BACKBONE = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": True, "num_stages": 4}
NECK = {
    "type": "FPN",
    "in_channels": [8, 16, 32, 64],
    "out_channels": 16,
    "num_outs": 5,
}
PIXELS = {"pixel_mean": [100.0, 110.0, 120.0], "pixel_std": [50.0, 55.0, 60.0]}
PREPROCESSOR = {
    "type": "DetDataPreprocessor",
    "mean": [123.7, 116.3, 103.5],
    "std": [58.4, 57.1, 57.4],
    "bgr_to_rgb": True,
    "pad_mask": True,
    "pad_size_divisor": 32,
}
ANCHORS = {"type": "AnchorGenerator", "ratios": [0.5, 1.0, 2.0], "strides": [8, 16, 32, 64, 128]}


def coder(stds):
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": stds}


def assigner(positive, negative, minimum):
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": minimum,
        "ignore_iof_thr": -1,
    }


def sampler(number, positive, add_gt):
    return {"type": "RandomSampler", "num": number, "pos_fraction": positive, "add_gt_as_proposals": add_gt}


def retinanet(**changes):
    return {
        "type": "RetinaNet",
        "data_preprocessor": PREPROCESSOR,
        "backbone": BACKBONE,
        "neck": {**NECK, "start_level": 1, "add_extra_convs": "on_input"},
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": CLASSES,
            "in_channels": 16,
            "stacked_convs": 1,
            "feat_channels": 16,
            "anchor_generator": {**ANCHORS, "octave_base_scale": 4, "scales_per_octave": 3},
            "bbox_coder": coder([1.0] * 4),
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25},
            "loss_bbox": {"type": "L1Loss"},
        },
        "train_cfg": {
            "assigner": assigner(0.5, 0.4, 0),
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
        },
        "test_cfg": {
            "nms_pre": 1000,
            "score_thr": 0.0,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": 10,
        },
        **changes,
    }


def mask_rcnn(**changes):
    region = {"type": "SingleRoIExtractor", "out_channels": 16, "featmap_strides": [4, 8, 16, 32]}
    return {
        "type": "MaskRCNN",
        "data_preprocessor": PREPROCESSOR,
        "backbone": BACKBONE,
        "neck": NECK,
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": 16,
            "feat_channels": 16,
            "anchor_generator": {**ANCHORS, "scales": [8], "strides": [4, 8, 16, 32, 64]},
            "bbox_coder": coder([1.0] * 4),
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {**region, "roi_layer": {"type": "RoIAlign", "output_size": 7}},
            "bbox_head": {
                "type": "Shared2FCBBoxHead",
                "in_channels": 16,
                "fc_out_channels": 32,
                "num_classes": CLASSES,
                "bbox_coder": coder([0.1, 0.1, 0.2, 0.2]),
            },
            "mask_roi_extractor": {**region, "roi_layer": {"type": "RoIAlign", "output_size": 14}},
            "mask_head": {
                "type": "FCNMaskHead",
                "num_convs": 1,
                "in_channels": 16,
                "conv_out_channels": 16,
                "num_classes": CLASSES,
            },
        },
        "train_cfg": {
            "rpn": {
                "assigner": {**assigner(0.7, 0.3, 0.3), "match_low_quality": True},
                "sampler": sampler(64, 0.5, False),
                "allowed_border": -1,
                "pos_weight": -1,
            },
            "rpn_proposal": {"nms_pre": 200, "max_per_img": 50, "nms": {"type": "nms", "iou_threshold": 0.7}},
            "rcnn": {
                "assigner": assigner(0.5, 0.5, 0.5),
                "sampler": sampler(64, 0.25, True),
                "mask_size": 28,
                "pos_weight": -1,
            },
        },
        "test_cfg": {
            "rpn": {"nms_pre": 200, "max_per_img": 50, "nms": {"type": "nms", "iou_threshold": 0.7}},
            "rcnn": {
                "score_thr": 0.0,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 10,
                "mask_thr_binary": 0.5,
            },
        },
        **changes,
    }


def make_input(rows=96, columns=128, objects=2, masks="bitmap", **more):
    """Make one input: rectangles in the color of their class on gray."""
    image = torch.full((3, rows, columns), 90, dtype=torch.uint8)
    boxes = torch.tensor([[8.0, 8, 56, 72], [64, 16, 120, 64], [30, 40, 100, 90]])[:objects]
    classes = torch.tensor([0, 2, 1])[:objects]
    bitmaps = torch.zeros(objects, rows, columns, dtype=torch.bool)
    for bitmap, box, label in zip(bitmaps, boxes.int().tolist(), classes.tolist()):
        inside = (slice(box[1], box[3]), slice(box[0], box[2]))
        bitmap[inside] = True
        image[(slice(None), *inside)] = 30
        image[(label, *inside)] = 250
    instances = Instances((rows, columns), gt_boxes=Boxes(boxes), gt_classes=classes)
    if masks == "bitmap":
        instances.gt_masks = BitMasks(bitmaps)
    elif masks == "polygon":
        corners = [[np.array([x1, y1, x2, y1, x2, y2, x1, y2])] for x1, y1, x2, y2 in boxes.double().tolist()]
        instances.gt_masks = PolygonMasks(corners)
    return {"image": image, "instances": instances, "file_name": f"{objects} objects", **more}


def panoptic_fpn(**changes):
    model = mask_rcnn()
    return {
        **model,
        "type": "PanopticFPN",
        "data_preprocessor": {**PREPROCESSOR, "pad_seg": True},
        "semantic_head": {
            "type": "PanopticFPNHead",
            "num_things_classes": CLASSES,
            "num_stuff_classes": 2,
            "in_channels": 16,
            "inner_channels": 16,
            "norm_cfg": None,
            "loss_seg": {"type": "CrossEntropyLoss", "ignore_index": 255, "avg_non_ignore": True},
        },
        "panoptic_fusion_head": {
            "type": "HeuristicFusionHead",
            "num_things_classes": CLASSES,
            "num_stuff_classes": 2,
        },
        "test_cfg": {**model["test_cfg"], "panoptic": {"mask_overlap": 0.5, "stuff_area_limit": 1}},
        **changes,
    }


@pytest.fixture(scope="session")
def mmdet():
    """Return mmdet, or skip the test if it is not installed."""
    return pytest.importorskip("mmdet")


class Element:
    """Stub of mmengine's ``BaseDataElement``: values and metainfo, both read as attributes."""

    def __init__(self, metainfo=None, **values):
        self.metainfo = dict(metainfo or {})
        vars(self).update(values)

    def __contains__(self, name):
        return name in vars(self)

    def __getattr__(self, name):
        if name == "metainfo" or name not in self.metainfo:
            raise AttributeError(name)
        return self.metainfo[name]


class StubMasks:
    """Stub of mmdet's mask containers."""

    def __init__(self, masks, height, width):
        self.masks, self.height, self.width = masks, height, width


class StubPreprocessor(nn.Module):
    """Stub of ``DetDataPreprocessor`` that records its calls."""

    def __init__(self, pad_size_divisor=1, batch_augments=None, **settings):
        super().__init__()
        self.divisor, self.batch_augments, self.settings = pad_size_divisor, batch_augments, settings
        self.calls = []

    def forward(self, data, training=False):
        self.calls.append({"training": training, "batch_augments": self.batch_augments})
        images = [image.float() for image in data["inputs"]]
        sides = [-(-max(x.shape[d] for x in images) // self.divisor) * self.divisor for d in (1, 2)]
        padded = [F.pad(x, (0, sides[1] - x.shape[2], 0, sides[0] - x.shape[1])) for x in images]
        return {"inputs": torch.stack(padded), "data_samples": data["data_samples"]}


@pytest.fixture
def stub_mmdet(monkeypatch):
    """Install stubs of the parts of mmdet, mmengine and mmcv that the wrapper of a built detector imports."""
    contents = {
        "mmcv": {},
        "mmdet": {},
        "mmdet.models": {"DetDataPreprocessor": StubPreprocessor},
        "mmdet.structures": {"DetDataSample": Element},
        "mmdet.structures.mask": {
            "BitmapMasks": type("BitmapMasks", (StubMasks,), {}),
            "PolygonMasks": type("PolygonMasks", (StubMasks,), {}),
        },
        "mmengine": {},
        "mmengine.model": {"ImgDataPreprocessor": StubPreprocessor},
        "mmengine.structures": {"InstanceData": Element, "PixelData": Element},
    }
    modules = {}
    for name, values in contents.items():
        modules[name] = ModuleType(name)
        vars(modules[name]).update(values)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, modules[name])
        monkeypatch.setitem(sys.modules, name, modules[name])
    # The extension is missing; monkeypatch removes the stand-ins afterwards.
    monkeypatch.setitem(sys.modules, "mmcv._ext", None)
    return modules
