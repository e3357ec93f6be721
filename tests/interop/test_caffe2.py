"""Names of Caffe2, and rows of background."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from hydet.data import DataError
from hydet.interop import caffe2
from hydet.interop.suffix_matching import match_by_suffix

GOLDENS = Path(__file__).parents[1] / "parity" / "goldens" / "state_dicts.json.gz"
PATH = Path("model_final.pkl")


@pytest.fixture(scope="module")
def shapes_of():
    """Return a function from a published config to the shapes of the tensors of its model."""
    goldens = json.loads(gzip.decompress(GOLDENS.read_bytes()))

    def find(name):
        inventory = goldens["configs"][f"configs/{name}.yaml"]["inventory"]
        return {tensor: tuple(shape) for tensor, shape, _ in goldens["inventories"][inventory]}

    return find


def with_background(name, shape):
    """Return the shape of a predictor in Caffe2."""
    more = {"bbox_pred": 4, "mask_head.predictor": 1}
    rows = next((n for end, n in more.items() if name.rpartition(".")[0].endswith(end)), 0)
    return (shape[0] + rows, *shape[1:])


@pytest.mark.parametrize(
    ("config", "norm"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", "bn"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x", "bn"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x", "bn"),
        ("COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x", "bn"),
        ("COCO-Detection/rpn_R_50_FPN_1x", "bn"),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x", "bn"),
        ("Misc/mask_rcnn_R_50_FPN_3x_gn", "gn"),
    ],
)
def test_detection_models_convert_completely(config, norm, shapes_of, caffe2_name):
    shapes = shapes_of(config)
    tensors = {
        caffe2_name(name, norm): torch.empty(with_background(name, shape), device="meta")
        for name, shape in shapes.items()
        if ".norm.running_" not in name
    }
    assert caffe2.fits(tensors)
    weights = match_by_suffix(caffe2.convert(PATH, tensors, {}), shapes)
    assert {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()} == shapes
    assert weights.renamed.keys() == shapes.keys()
    assert weights.renamed[next(iter(shapes))] == caffe2_name(next(iter(shapes)), norm)


def test_backbones_fit_detectors(shapes_of, caffe2_name):
    """Files of ImageNet classifiers hold affine norms, momentum and a classifier that no detector has."""
    shapes = shapes_of("COCO-Detection/retinanet_R_50_FPN_1x")
    backbone = {n: s for n, s in shapes.items() if n.startswith("backbone.bottom_up")}
    tensors = {caffe2_name(n): torch.full(s, 2.0) for n, s in backbone.items() if ".running_" not in n}
    tensors |= {"conv1_w_momentum": torch.zeros(1), "fc1000_w": torch.zeros(1), "pred_b": torch.zeros(1)}
    weights = match_by_suffix(caffe2.convert(PATH, tensors, {}), shapes)
    assert weights.tensors.keys() - shapes.keys() == {"fc1000.weight", "linear.bias"}
    assert weights.skipped == {"conv1_w_momentum": "state of the optimizer"}
    norm = "backbone.bottom_up.res3.0.shortcut.norm."
    values = {name: weights.tensors[norm + name].unique().item() for name in ("weight", "bias")}
    assert values == {"weight": 2, "bias": 2}
    assert weights.tensors[norm + "running_mean"].unique().item() == 0
    assert weights.tensors[norm + "running_var"].unique().item() == pytest.approx(1 - 1e-5, abs=1e-7)
    assert weights.renamed[norm + "running_mean"] == "res3_0_branch1_bn_s"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("res2_0_branch2a_bn_rm", "res2.0.conv1.norm.running_mean"),
        ("res2_0_branch2a_bn_riv", "res2.0.conv1.norm.running_var"),
        ("res2_0_branch2a_bn_running_mean", "res2.0.conv1.norm.running_mean"),
        ("res2_0_branch2a_bn_running_var", "res2.0.conv1.norm.running_var"),
        ("res2_0_branch2a_bn_gamma", "res2.0.conv1.norm.weight"),
        ("res2_0_branch2a_bn_beta", "res2.0.conv1.norm.bias"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("conv1_gn_b", "stem.conv1.norm.bias"),
        ("conv1_b", "stem.conv1.bias"),
        ("conv_rpn_w", "proposal_generator.rpn_head.conv.weight"),
        ("rpn_bbox_pred_b", "proposal_generator.rpn_head.anchor_deltas.bias"),
        ("rpn_cls_logits_w", "proposal_generator.rpn_head.objectness_logits.weight"),
        ("head_conv2_gn_s", "box_head.conv2.norm.weight"),
        ("fpn_inner_res5_2_sum_gn_s", "fpn_lateral5.norm.weight"),
        ("fpn_inner_res3_3_sum_lateral_gn_b", "fpn_lateral3.norm.bias"),
        ("fpn_res4_22_sum_w", "fpn_output4.weight"),
        ("_mask_fcn3_w", "mask_head.mask_fcn3.weight"),
        ("kps_score_w", "roi_heads.keypoint_head.score.weight"),
    ],
)
def test_names(name, expected):
    rows = torch.zeros(8)
    tensors = caffe2.convert(PATH, {name: rows}, {}).tensors
    assert expected in tensors
    if "running" not in expected and "norm.weight" not in expected:
        assert list(tensors) == [expected]


def test_rows_of_background():
    tensors = {
        "cls_score_b": torch.arange(3.0),
        "bbox_pred_b": torch.arange(12.0),
        "mask_fcn_logits_b": torch.arange(3.0),
    }
    converted = caffe2.convert(PATH, tensors, {}).tensors
    assert converted["cls_score.bias"].tolist() == [1, 2, 0]
    assert converted["bbox_pred.bias"].tolist() == list(range(4, 12))
    assert converted["mask_head.predictor.bias"].tolist() == [1, 2]
    agnostic = {"bbox_pred_b": torch.arange(8.0), "mask_fcn_logits_b": torch.arange(1.0)}
    converted = caffe2.convert(PATH, agnostic, {}).tensors
    assert [len(converted[name]) for name in ("bbox_pred.bias", "mask_head.predictor.bias")] == [4, 1]


def test_names_that_collide_and_predictors_without_rows_are_refused():
    number = torch.zeros(1)
    with pytest.raises(
        DataError, match=r"model_final\.pkl: conv_rpn_w and conv_rpn_fpn2_w are both proposal"
    ):
        caffe2.convert(PATH, {"conv_rpn_w": number, "conv_rpn_fpn2_w": number}, {})
    with pytest.raises(DataError, match=r"model_final\.pkl: cls_score_b is a predictor of shape \(\)"):
        caffe2.convert(PATH, {"cls_score_b": torch.tensor(1.0)}, {})


def test_other_names_do_not_fit():
    number = torch.zeros(1)
    for names in (["backbone.stem.conv1.weight"], ["weight", "bias"], ["conv1_w", "a.b"], []):
        assert not caffe2.fits(dict.fromkeys(names, number))
