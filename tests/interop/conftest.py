"""Weight files in the formats of other libraries, made from models."""

import re

import pytest

RULES = [
    (r"^backbone\.(bottom_up\.)?", ""),
    (r"^roi_heads\.res5\.", "res5."),
    (r"^roi_heads\.box_predictor\.", ""),
    (r"^roi_heads\.box_head\.(conv\d)", r"head.\1"),
    (r"^roi_heads\.box_head\.fc1", "fc6"),
    (r"^roi_heads\.box_head\.fc2", "fc7"),
    (r"^roi_heads\.mask_head\.mask_fcn", ".[mask].fcn"),
    (r"^roi_heads\.mask_head\.predictor", "mask.fcn.logits"),
    (r"^roi_heads\.mask_head\.deconv", "conv5.mask"),
    (r"^roi_heads\.keypoint_head\.conv_fcn", "conv.fcn"),
    (r"^roi_heads\.keypoint_head\.score_lowres", "kps.score.lowres"),
    (r"^roi_heads\.keypoint_head\.score\.", "kps.score."),
    (r"^proposal_generator\.rpn_head\.conv", "conv.rpn.fpn2"),
    (r"^proposal_generator\.rpn_head\.anchor_deltas", "rpn.bbox.pred.fpn2"),
    (r"^proposal_generator\.rpn_head\.objectness_logits", "rpn.cls.logits.fpn2"),
    (r"^fpn_lateral5", "fpn.inner.res5.2.sum"),
    (r"^fpn_lateral(\d)", r"fpn.inner.res\1.2.sum.lateral"),
    (r"^fpn_output(\d)", r"fpn.res\1.2.sum"),
    (r"^stem\.conv1\.norm", "res.conv1.NORM"),
    (r"^stem\.conv1", "conv1"),
    (r"\.shortcut\.", ".branch1."),
    (r"^(res\d\.\d+)\.conv1\.", r"\1.branch2a."),
    (r"^(res\d\.\d+)\.conv2\.", r"\1.branch2b."),
    (r"^(res\d\.\d+)\.conv3\.", r"\1.branch2c."),
    (r"\.(norm|NORM)\.weight$", ".NORM.s"),
    (r"\.(norm|NORM)\.bias$", ".NORM.b"),
    (r"\.(norm|NORM)\.running_mean$", ".NORM.rm"),
    (r"\.(norm|NORM)\.running_var$", ".NORM.riv"),
    (r"\.weight$", ".w"),
    (r"\.bias$", ".b"),
]


@pytest.fixture(scope="session")
def caffe2_name():
    """Return a function from a name in a model of hydet to that of Caffe2; the norms are ``bn`` or ``gn``."""

    def convert(name, norm="bn"):
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        return name.replace("NORM", norm).replace("res.conv1.gn", "conv1.gn").replace(".", "_")

    return convert
