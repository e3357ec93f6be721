"""Parts of ROI heads implement the declared interfaces."""

import pytest
import torch
from torch import nn

import hydet
from hydet.modeling.roi_heads import interfaces

OPTIONS = [
    "cascade_mask_rcnn_fpn",
    "keypoint_rcnn_fpn",
    "mask_rcnn_c4",
    "mask_rcnn_fpn",
    "rotated_faster_rcnn_fpn",
]


@pytest.fixture(scope="module", params=OPTIONS)
def roi_heads(request):
    with torch.device("meta"):
        return hydet.instantiate(hydet.compose(f"model={request.param}").model).roi_heads


def get_parts(roi_heads, name):
    """Return the parts of an attribute: one per stage of a cascade, none if the heads do not have it."""
    part = getattr(roi_heads, name, None)
    if part is None:
        return []
    return list(part) if isinstance(part, nn.ModuleList) else [part]


@pytest.mark.parametrize(
    ("names", "interface"),
    [
        (("box_predictor",), interfaces.BoxPredictor),
        (("box_pooler", "mask_pooler", "keypoint_pooler", "pooler"), interfaces.RegionPooler),
        (("mask_head", "keypoint_head"), interfaces.RegionHead),
    ],
)
def test_parts_implement_their_interfaces(roi_heads, differences, names, interface):
    for name in names:
        for part in get_parts(roi_heads, name):
            assert differences(interface, part) == [], name


def test_box_predictors_have_the_classes_of_their_heads(roi_heads):
    predictors = get_parts(roi_heads, "box_predictor")
    assert predictors
    assert all(predictor.num_classes == roi_heads.num_classes for predictor in predictors)


def test_box_predictions_unpack_as_scores_and_deltas():
    scores, deltas = interfaces.BoxPredictions(scores=torch.zeros(2, 4), deltas=torch.ones(2, 12))
    assert scores.shape == (2, 4)
    assert deltas.shape == (2, 12)
