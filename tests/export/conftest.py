"""A small RetinaNet, and small models of every architecture, with images for the comparison."""

import copy
import functools

import pytest
import torch
from torch import nn

import hydet
from hydet.data.shapes import ShapesDataset
from hydet.export import ExportMismatchError, export_model
from hydet.export.agreement import BOUNDS, Agreement
from hydet.layers import ShapeSpec
from hydet.modeling import (
    Backbone,
    Box2BoxTransform,
    DefaultAnchorGenerator,
    Matcher,
    RetinaNet,
    RetinaNetHead,
)
from hydet.runs.benchmark_inputs import damp_residuals

from ..modeling.meta_arch.conftest import set_score_threshold, tiny_backbone_overrides

CLASSES = 3
SIZE = (96, 128)


class TinyBackbone(Backbone):
    """Two levels from two strided convolutions."""

    size_divisibility = 16

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 2, stride=2)

    def output_shape(self):
        return {"p3": ShapeSpec(channels=8, stride=8), "p4": ShapeSpec(channels=8, stride=16)}

    def forward(self, x):
        p3 = self.first(x).relu()
        return {"p3": p3, "p4": self.second(p3).relu()}


@functools.cache
def _shapes():
    dataset = ShapesDataset(num_images=3, seed=5, image_size=(96, 112), max_image_size=(128, 128))
    return dataset.metadata, tuple(dataset[i].image for i in range(3))


@pytest.fixture(scope="session")
def metadata():
    return _shapes()[0]


@pytest.fixture(scope="session")
def images():
    return list(_shapes()[1])


def make_retinanet():
    """Build a RetinaNet on two convolutions, whose weights expect BGR, with random weights."""
    torch.manual_seed(0)
    levels = [ShapeSpec(channels=8)] * 2
    return RetinaNet(
        backbone=TinyBackbone(),
        head=RetinaNetHead(
            input_shape=levels, num_classes=CLASSES, num_anchors=3, conv_dims=[8], prior_prob=0.3
        ),
        head_in_features=["p3", "p4"],
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[16], [32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16]
        ),
        box2box_transform=Box2BoxTransform(weights=(1.0,) * 4),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=CLASSES,
        pixel_mean=[100.0, 110.0, 120.0],
        pixel_std=[50.0, 50.0, 50.0],
        input_format="BGR",
        test_score_thresh=0.2,
    ).eval()


@pytest.fixture
def retinanet():
    return make_retinanet()


@pytest.fixture(scope="session")
def exported_folder(tmp_path_factory, metadata, images):
    """Function that exports ``retinanet`` once per format, and returns the folder."""

    @functools.cache
    def export(format):
        folder = tmp_path_factory.mktemp(format)
        resize = {"name": "shortest_edge", "short": 96, "max_size": 128}
        export_model(
            make_retinanet(),
            folder / ("model.onnx" if format == "onnx" else "model.pt2"),
            format=format,
            metadata=metadata,
            images=images[:2],
            resize=resize,
            sizes=[SIZE],
        )
        return folder

    return export


def as_inputs(model, images):
    return [{"image": image.flip(0) if model.input_format == "BGR" else image} for image in images]


class StableImages:
    """Makes random images on which rounding does not change the results of a model with random weights.

    Two copies of the model have weights that differ in the last digits. An image on which they find other objects has a
    near-tie: two scores, or an overlap and its threshold, that are equal up to rounding.
    """

    def __init__(self, model, thresholds):
        self.model, self.thresholds = model, thresholds
        self.copies = [copy.deepcopy(model) for _ in range(2)]
        self.generator = torch.Generator().manual_seed(0)
        for other in self.copies:
            for parameter in other.parameters():
                noise = torch.rand(parameter.shape, generator=self.generator) - 0.5
                parameter.data.mul_(1 + 1e-6 * noise)

    def make(self, *sizes, batches=lambda images: [images]):
        """Return images of the sizes that are stable in all the batches that are made of them."""
        for _ in range(200):
            images = [
                torch.randint(256, (3, *size), dtype=torch.uint8, generator=self.generator) for size in sizes
            ]
            if all(self._is_stable(batch) for batch in batches(images)):
                return images
        raise AssertionError(f"every image of {sizes} has a near-tie")

    def agreement(self):
        return Agreement(BOUNDS["fp32"], self.thresholds["score"], self.thresholds["max_detections"])

    @torch.no_grad()
    def _is_stable(self, batch):
        agreement = self.agreement()
        expected = self.model.inference(as_inputs(self.model, batch))
        for other in self.copies:
            agreement.add(expected, other.inference(as_inputs(other, batch)))
        try:
            agreement.check("a copy")
        except ExportMismatchError:
            return False
        return True


def small_model(name):
    """Build a model of an option of conf/model with random weights, which detect many objects."""
    torch.manual_seed(0)
    model = hydet.instantiate(hydet.compose(*tiny_backbone_overrides(name)).model).eval()
    damp_residuals(model)
    set_score_threshold(model, 0.02)
    return model


def shrink_deltas(model):
    """Make box deltas as small as those of trained weights; others move boxes by many pixels in half precision."""
    for name, parameter in model.named_parameters():
        if "bbox_pred" in name or "anchor_deltas" in name:
            parameter.data.mul_(0.05)
    return model
