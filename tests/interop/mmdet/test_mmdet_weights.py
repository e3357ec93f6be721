"""Detectors of mmdet with random weights: saved, read, built in hydet, and compared with mmdet's inference."""

from pathlib import Path

import pytest
import torch
from torch import nn

import hydet
from hydet.interop import mmdet_weights, read_foreign
from hydet.interop.mmdet.building import build_from_config

CONFIGS = {
    "faster_rcnn": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "mask_rcnn": "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "cascade_rcnn": "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    "cascade_mask_rcnn": "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "fcos_improved": "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "panoptic_fpn": "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
}
SLIM = 32  # channels
MIN_SIZE = 4  # of proposals, for files with a config
# The cells in the padding of a smaller image have equal features, so the order of their proposals is arbitrary and
# differs. Dense detectors drop their boxes.
SIZES, EQUAL_SIZES = [(96, 128), (80, 104)], [(96, 128), (96, 128)]

# Standard deviations that let random models detect with small deltas, as trained ones do.
SCALES = {
    "fc_cls.weight": 0.5,
    "fc_reg.weight": 0.03,
    "rpn_cls.weight": 0.2,
    "rpn_reg.weight": 0.02,
    "retina_cls.weight": 0.05,
    "retina_reg.weight": 0.002,
    "conv_cls.weight": 0.05,
    "conv_reg.weight": 0.01,
    "conv_centerness.weight": 0.05,
    "conv_logits.weight": 0.3,
}


def load_config(mmdet, name):
    """Return a published config of mmdet with a slim model."""
    from mmengine.config import Config

    root = Path(mmdet.__file__).parent / ".mim" / "configs"
    config = Config.fromfile(root / CONFIGS[name])
    model = config.model
    model.backbone.update(depth=18, base_channels=16)
    model.backbone.pop("init_cfg", None)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=SLIM)
    if "bbox_head" in model:
        model.bbox_head.update(in_channels=SLIM, feat_channels=SLIM, stacked_convs=2)
        return config
    model.rpn_head.update(in_channels=SLIM, feat_channels=SLIM)
    model.test_cfg.rpn.min_bbox_size = MIN_SIZE
    roi = model.roi_head
    for part in ("bbox_roi_extractor", "mask_roi_extractor"):
        if part in roi:
            roi[part].out_channels = SLIM
    for head in roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]:
        head.update(in_channels=SLIM, fc_out_channels=64)
    if "mask_head" in roi:
        roi.mask_head.update(in_channels=SLIM, conv_out_channels=SLIM, num_convs=2)
    if "semantic_head" in model:
        model.semantic_head.update(in_channels=SLIM, inner_channels=SLIM)
        model.test_cfg.rcnn.score_thr = 0.06
        model.test_cfg.panoptic.stuff_area_limit = 64
    return config


@torch.no_grad()
def randomize(detector, images):
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    batch = torch.stack([nn.functional.pad(x, (0, 128 - x.shape[2], 0, 96 - x.shape[1])) for x in images])
    detector.backbone((batch.float() - 120) / 58)
    detector.eval()
    for name, parameter in detector.named_parameters():
        scale = next((scale for end, scale in SCALES.items() if name.endswith(end)), None)
        if scale is not None:
            parameter.normal_(0, scale / (parameter[0].numel() / SLIM) ** 0.5)
        elif "_convs." in name and "bbox_head" in name and parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith(("retina_cls.bias", "conv_cls.bias")):
            parameter.fill_(-2.0)
        elif name.endswith(".scale"):
            parameter.uniform_(0.8, 1.2)
        elif name.endswith("conv_reg.bias"):
            parameter.fill_(2.0)
        elif "semantic_head" in name and name.endswith("conv_logits.bias"):
            parameter.normal_()
    return detector


def make_images(sizes):
    torch.manual_seed(0)
    coarse = [torch.rand(1, 3, height // 8, width // 8) for height, width in sizes]
    images = [
        nn.functional.interpolate(x, size, mode="bicubic")[0] for x, size in zip(coarse, sizes, strict=True)
    ]
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8) for image in images]


@torch.no_grad()
def run_mmdet(detector, images, sizes):
    """Run mmdet's own inference on RGB images; it reads BGR."""
    from mmdet.structures import DetDataSample

    samples = [
        DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
        for size in sizes
    ]
    return detector.test_step({"inputs": [image.flip(0) for image in images], "data_samples": samples})


def read_and_build(path):
    weights = read_foreign(path)
    assert weights.format == "mmdet" and not weights.skipped
    model = hydet.instantiate(hydet.compose(*weights.model.overrides).model).eval()
    model.load_state_dict(dict(weights.tensors))
    return weights, model


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_results_equal_those_of_mmdet(name, with_config, mmdet, tmp_path):
    if not with_config and name in ("panoptic_fpn", "fcos_improved"):
        pytest.skip("differs from the defaults of mmdet")
    torch.manual_seed(0)
    config = load_config(mmdet, name)
    sizes = SIZES if "bbox_head" in config.model else EQUAL_SIZES
    images = make_images(sizes)
    if not with_config and "rpn" in config.model.test_cfg:
        config.model.test_cfg.rpn.min_bbox_size = 0
    detector = randomize(build_from_config(config.model.to_dict(), owner="test"), images)
    meta = {"cfg": config.pretty_text, "dataset_meta": {"classes": [f"class {i}" for i in range(80)]}}
    path = tmp_path / "epoch_12.pth"
    torch.save({"meta": meta if with_config else {}, "state_dict": detector.state_dict()}, path)
    weights, ours = read_and_build(path)
    assert len(weights.model.class_names) == 80
    expected = run_mmdet(detector, images, sizes)
    with torch.no_grad():
        batch = [{"image": x if ours.input_format == "RGB" else x.flip(0)} for x in images]
        results = ours.inference(batch)
    if name == "panoptic_fpn":
        compare_panoptic(results, expected, batch, ours, detector)
        return
    assert sum(len(result["instances"]) for result in results) > 20
    for result, sample in zip(results, expected, strict=True):
        ours_i, theirs = result["instances"], sample.pred_instances
        distance = (theirs.bboxes[:, None] - ours_i.pred_boxes.tensor).abs().amax(dim=2)
        distance[theirs.labels[:, None] != ours_i.pred_classes] = torch.inf
        order = distance.argmin(dim=1)  # the order of detections with nearly equal scores depends on rounding
        assert sorted(order.tolist()) == list(range(len(ours_i)))
        ours_i = ours_i[order]
        torch.testing.assert_close(ours_i.pred_boxes.tensor, theirs.bboxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours_i.scores, theirs.scores, rtol=0, atol=1e-4)
        assert torch.equal(ours_i.pred_classes, theirs.labels)
        if "masks" in theirs:
            different = ours_i.pred_masks != theirs.masks
            assert different.float().mean() < 1e-4  # pixels whose probability is within rounding of 0.5


def compare_panoptic(results, expected, batch, ours, detector):
    for result, sample in zip(results, expected, strict=True):
        segmentation, segments = result["panoptic_seg"]
        theirs = sample.pred_panoptic_seg.sem_seg[0]
        labels = torch.full_like(theirs, 133)  # mmdet's label of pixels without a segment
        for segment in segments:
            label = segment["category_id"] if segment["isthing"] else 80 + segment["category_id"] - 1
            labels[segmentation == segment["id"]] = label
        assert (labels != theirs % 1000).float().mean() < 1e-3
        assert any(s["isthing"] for s in segments) and any(not s["isthing"] for s in segments)
        assert len([s for s in segments if s["isthing"]]) == len(theirs[theirs >= 1000].unique())


def test_damaged_configs_are_ignored():
    from hydet.interop.mmdet_config import read_model_config

    assert read_model_config("model = dict(type='FCOS', neck=dict(start_level=1), x=[1, (2, -3.5)])") == {
        "type": "FCOS",
        "neck": {"start_level": 1},
        "x": [1, [2, -3.5]],
    }
    for text in (
        "model = open('x')",
        "model = dict(a=b)",
        "model =",
        "other = 1",
        "model = dict(**x)",
        None,
        "(" * 9999,
    ):
        assert read_model_config(text) == {}


def test_other_backbones_are_refused():
    tensors = {
        name: torch.zeros(1)
        for name in (
            "neck.lateral_convs.0.conv.weight",
            "bbox_head.retina_cls.weight",
            "backbone.stem.weight",
        )
    }
    assert mmdet_weights.fits(tensors)
    with pytest.raises(ValueError, match=r"x\.pth: a detector of mmdet with another backbone"):
        mmdet_weights.convert(Path("x.pth"), tensors, {})
