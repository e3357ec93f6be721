"""Small models: every architecture of ``conf/model/``, and dense detectors on a backbone of two convolutions."""

import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hydet
import hydet.conf
from hydet.layers import ShapeSpec
from hydet.modeling import (
    FCOS,
    Backbone,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    DenseDetector,
    FCOSHead,
    Matcher,
    RetinaNet,
    RetinaNetHead,
)
from hydet.structures import BitMasks, Boxes, Instances, Keypoints, RotatedBoxes

MODELS = (Path(hydet.conf.__path__[0]) / "model").glob("*.yaml")
ARCHITECTURES = sorted(p.stem for p in MODELS if p.stem != "mmdet")  # its parts come from mmdet
CLASSES, KEYPOINTS, STUFF, IGNORED = 3, 5, 5, 255
SIZES = ((64, 96), (64, 96))

SMALL = [
    "size.pyramid_channels=16",
    "size.fc_channels=16",
    "size.mask_conv_dims=[8,8]",
    "size.keypoint_conv_dims=[8]",
    "size.dense_conv_dims=[64]",  # GN has 32 groups, which need more than one channel each
    "size.canonical_box_size=24",  # so that each level of a pyramid has boxes
    "size.pyramid_pre_nms_topk=[30,30]",
    "size.single_pre_nms_topk=[60,60]",
    "size.post_nms_topk=[20,20]",
    "size.single_post_nms_topk=[20,20]",
]
TINY_RESNET = ["backbone.stem_out_channels=8", "backbone.res2_out_channels=8"]
TINY_BOTTLENECKS = [
    "backbone=r50_slim",
    "backbone.stem_out_channels=8",
    "backbone.width_per_group=4",
    "backbone.res2_out_channels=16",
]
TINY_TRANSFORMER = [
    "backbone=vitdet_b",
    "backbone.img_size=128",
    "+backbone.pretrain_img_size=128",
    "backbone.embed_dim=16",
    "backbone.depth=2",
    "backbone.num_heads=2",
    "backbone.window_size=2",
    "backbone.window_block_indexes=[0]",
    "model.backbone.square_pad=128",
]


def has_semantic_labels(name):
    return "panoptic" in name or "semantic" in name


def tiny_backbone_overrides(name):
    """Return the overrides that select an architecture, its data and a tiny backbone."""
    backbone = TINY_RESNET
    if "vitdet" in name:
        backbone = TINY_TRANSFORMER
    elif "dc5" in name or "c4" in name:
        backbone = TINY_BOTTLENECKS
    labels = "_panoptic" if has_semantic_labels(name) else "_rotated" if "rotated" in name else ""
    return [f"model={name}", f"data=shapes{labels}", *backbone]


def _overrides(name):
    yield from tiny_backbone_overrides(name)
    yield from SMALL
    if has_semantic_labels(name):
        yield "model.sem_seg_head.conv_dims=64"


@functools.cache
def _built(name):
    """Compose and build a model once, since that takes longer than a test.

    Batch normalizations get statistics of a batch, and thresholds let detections through.
    """
    torch.manual_seed(0)
    model = hydet.instantiate(hydet.compose(*_overrides(name)).model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train().compute_losses(Architecture(name).batch())
    for norm in norms:
        norm.momentum = 0.1
    set_score_threshold(model, 0.0)
    if hasattr(model, "combine_stuff_area_thresh"):
        model.combine_stuff_area_thresh = 20
        model.combine_instances_score_thresh = 0.0
    return model


def set_score_threshold(model, value):
    for module in model.modules():
        if hasattr(module, "test_score_thresh"):
            module.test_score_thresh = value


def some_boxes(count, size, smallest=6.0):
    """Return ``(count, 4)`` random boxes of all sizes inside an image of (height, width)."""
    room = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = (smallest + torch.rand(count, 2) ** 2 * (room - smallest)).clamp(max=room)
    near = torch.rand(count, 2) * (room - sides)
    return torch.cat([near, near + sides], dim=1)


def ground_truth(size, boxes, *, rotated=False):
    """Return ``Instances`` with the ground truth of all tasks for ``(N, 4)`` boxes."""
    count = boxes.shape[0]
    classes = torch.randint(CLASSES, (count,))
    if rotated:
        center, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rotated_boxes = torch.cat([center, sides, torch.rand(count, 1) * 360 - 180], dim=1)
        return Instances(size, gt_boxes=RotatedBoxes(rotated_boxes), gt_classes=classes)
    y, x = torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    masks = ((y > y1) & (y < y2))[:, :, None] & ((x > x1) & (x < x2))[:, None, :]
    inside = boxes[:, None, :2] + torch.rand(count, KEYPOINTS, 2) * (boxes[:, None, 2:] - boxes[:, None, :2])
    return Instances(
        size,
        gt_boxes=Boxes(boxes),
        gt_classes=classes,
        gt_masks=BitMasks(masks),
        gt_keypoints=Keypoints(torch.cat([inside, torch.full((count, KEYPOINTS, 1), 2.0)], dim=2)),
    )


class Architecture:
    """One of ``ARCHITECTURES``: builds models, and inputs for them.

    Args:
        name: file in ``conf/model/``, without suffix.
    """

    def __init__(self, name):
        self.name = name
        self.rotated = "rotated" in name
        self.given_proposals = name.startswith("fast_rcnn")
        self.has_boxes = name != "semantic_fpn"

    def model(self):
        """Return a new model in training mode, always with the same weights."""
        return copy.deepcopy(_built(self.name)).train()

    def entry(self, size=SIZES[0], boxes=None, count=4, name="image.png"):
        """Return one input of a batch.

        Args:
            size: (height, width).
            boxes: ``(N, 4)`` boxes of the objects; by default ``count`` random boxes.
            count: number of random boxes.
            name: value of ``file_name``.
        """
        boxes = some_boxes(count, size) if boxes is None else torch.as_tensor(boxes, dtype=torch.float32)
        labels = torch.full(size, IGNORED)  # the stuff of an image without objects is unknown
        if len(boxes):
            labels = torch.randint(STUFF, (size[0] // 8 + 1, size[1] // 8 + 1))
            labels = labels.repeat_interleave(8, 0).repeat_interleave(8, 1)[: size[0], : size[1]]
        entry = {
            "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8),
            "instances": ground_truth(size, boxes, rotated=self.rotated),
            "sem_seg": labels,
            "file_name": name,
        }
        if self.given_proposals:
            near = (boxes.repeat(3, 1) + 2 * torch.randn(3 * len(boxes), 4)).clamp(min=0)
            regions = Boxes(torch.cat([some_boxes(20, size), near]))
            regions.clip(size)
            regions = regions[regions.nonempty()]
            entry["proposals"] = Instances(
                size, proposal_boxes=regions, objectness_logits=torch.randn(len(regions))
            )
        return entry

    def batch(self, sizes=SIZES, counts=(4, 3)):
        """Return one input per number of objects in ``counts``."""
        torch.manual_seed(1)
        pairs = zip(sizes, counts, strict=False)
        return [self.entry(size, count=n, name=f"{i}.png") for i, (size, n) in enumerate(pairs)]

    def without_proposals(self, model, batch):
        """Remove all proposals: those of the proposal generator, or those in the inputs."""
        if self.given_proposals:
            for entry in batch:
                entry["proposals"] = entry["proposals"][:0]
        elif hasattr(model, "proposal_generator"):
            model.proposal_generator.min_box_size = 1e6
        return batch

    @property
    def dense(self):
        return isinstance(_built(self.name), DenseDetector)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    """Each architecture in turn; ``indirect`` parameters choose some of them."""
    return Architecture(request.param)


@pytest.fixture
def tools():
    """Functions and constants of this file."""
    return SimpleNamespace(
        num_classes=CLASSES,
        num_keypoints=KEYPOINTS,
        num_labels=STUFF,
        set_score_threshold=set_score_threshold,
    )


LEVELS = [ShapeSpec(channels=8)] * 2
PIXELS = {"pixel_mean": [100.0, 110.0, 120.0], "pixel_std": [50.0, 50.0, 50.0]}


class TinyBackbone(Backbone):
    """Two levels from two strided convolutions; counts its forward passes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 2, stride=2)
        self.passes = 0

    size_divisibility = 16

    def output_shape(self):
        return {"p4": ShapeSpec(channels=8, stride=16), "p3": ShapeSpec(channels=8, stride=8)}

    def forward(self, x):
        self.passes += 1
        p3 = self.first(x).relu()
        return {"p3": p3, "p4": self.second(p3).relu()}


def make_retinanet(norm="", **kwargs):
    torch.manual_seed(0)
    settings = dict(
        backbone=TinyBackbone(),
        head=RetinaNetHead(input_shape=LEVELS, num_classes=CLASSES, num_anchors=3, conv_dims=[8], norm=norm),
        head_in_features=["p3", "p4"],
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[16], [32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16]
        ),
        box2box_transform=Box2BoxTransform(weights=(1.0,) * 4),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=CLASSES,
        test_score_thresh=0.005,
        **PIXELS,
    )
    return RetinaNet(**(settings | kwargs))


def make_fcos(**kwargs):
    torch.manual_seed(0)
    settings = dict(
        backbone=TinyBackbone(),
        head=FCOSHead(input_shape=LEVELS, num_classes=CLASSES, conv_dims=[8]),
        num_classes=CLASSES,
        test_score_thresh=0.05,
        **PIXELS,
    )
    return FCOS(**(settings | kwargs))


def make_dense_batch(counts=(2, 1), sizes=((64, 96), (48, 64))):
    torch.manual_seed(1)
    batch = []
    for (height, width), count in zip(sizes, counts, strict=True):
        corner = torch.rand(count, 2) * torch.tensor([width - 40, height - 40])
        gt_instances = Instances(
            (height, width),
            gt_boxes=Boxes(torch.cat([corner, corner + 12 + 26 * torch.rand(count, 2)], dim=1)),
            gt_classes=torch.randint(0, CLASSES, (count,)),
        )
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        batch.append({"image": image, "instances": gt_instances, "height": 2 * height, "width": width})
    return batch


@pytest.fixture(params=["retinanet", "fcos"])
def make_dense(request):
    """Function that builds a RetinaNet, then an FCOS, both with ``make_dense.name``."""
    make = functools.partial({"retinanet": make_retinanet, "fcos": make_fcos}[request.param])
    make.name = request.param
    return make


@pytest.fixture
def retinanet():
    """Function that builds a RetinaNet."""
    return make_retinanet


@pytest.fixture
def fcos():
    """Function that builds an FCOS."""
    return make_fcos


@pytest.fixture
def dense_batch():
    """Function that returns inputs for RetinaNet and FCOS."""
    return make_dense_batch
