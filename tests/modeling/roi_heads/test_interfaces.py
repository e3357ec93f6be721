"""Parts of ROI heads implement the declared interfaces."""

import pytest
import torch

import hydet
from hydet.modeling.roi_heads import interfaces


@pytest.fixture(
    scope="module",
    params=[
        "mask_rcnn_fpn",
        "keypoint_rcnn_fpn",
        "cascade_mask_rcnn_fpn",
        "mask_rcnn_c4",
        "rotated_faster_rcnn_fpn",
    ],
)
def roi_heads(request):
    with torch.device("meta"):
        return hydet.instantiate(hydet.compose(f"model={request.param}").model).roi_heads


def parts(roi_heads, name):
    part = getattr(roi_heads, name, None)
    return [] if part is None else list(part) if isinstance(part, torch.nn.ModuleList) else [part]


@pytest.mark.parametrize(
    ("names", "interface"),
    [
        (("box_predictor",), interfaces.BoxPredictor),
        (("box_pooler", "mask_pooler", "keypoint_pooler", "pooler"), interfaces.RegionPooler),
        (("mask_head", "keypoint_head"), interfaces.RegionHead),
    ],
)
def test_parts_implement_their_interface(roi_heads, differences, names, interface):
    for name in names:
        for part in parts(roi_heads, name):
            assert differences(interface, part) == [], name


def test_every_head_has_a_box_predictor(roi_heads):
    for predictor in parts(roi_heads, "box_predictor"):
        assert predictor.num_classes == roi_heads.num_classes
    assert parts(roi_heads, "box_predictor")


def test_box_predictions_unpack_as_scores_and_deltas():
    scores, deltas = interfaces.BoxPredictions(scores=torch.zeros(2, 4), deltas=torch.ones(2, 12))
    assert scores.shape == (2, 4) and deltas.shape == (2, 12)
