import pytest
import torch

import hydet
from hydet.config import ConfigError
from hydet.runs.benchmark_inputs import random_batch
from hydet.runs.benchmark_works import Variant, build_subject, build_work
from hydet.runs.torchvision_models import build_torchvision, to_torchvision


def build(*overrides):
    return hydet.instantiate(hydet.compose(*overrides, "backbone=r18_slim", "size=slim").model)


def test_a_model_without_counterpart_is_named():
    model = build("model=panoptic_fpn", "data=shapes_panoptic")
    with pytest.raises(ConfigError, match="torchvision has no counterpart of PanopticFPN"):
        build_torchvision(model, num_classes=3, num_keypoints=5)


def test_targets_keep_boxes_and_shift_classes():
    model = build("model=keypoint_rcnn_fpn")
    batch = random_batch(model, 2, (64, 96), num_classes=3, num_keypoints=5, num_labels=5)
    images, targets = to_torchvision(batch, torch.device("cpu"))
    for entry, image, target in zip(batch, images, targets, strict=True):
        assert image.shape == (3, 64, 96) and image.min() >= 0 and image.max() <= 1
        assert torch.equal(target["boxes"], entry["instances"].gt_boxes.tensor)
        assert torch.equal(target["labels"], entry["instances"].gt_classes + 1)
        assert target["keypoints"].shape == (8, 5, 3)


@pytest.mark.parametrize("work", ["inference", "training"])
def test_torchvision_runs_the_same_batch(work):
    config = hydet.compose(
        "model=fcos", "backbone=r18_slim", "size=slim", "image_size=[64,96]", "num_classes=3",
        f"work={work}", "device=cpu", config_name="benchmark",
    )  # fmt: skip
    made = build_work(config, build_subject(config), Variant(torchvision=True))
    result = made.run()
    assert made.name == "torchvision"
    if work == "training":
        assert result.isfinite() and all(p.grad is None for p in made.model.parameters())
    else:
        assert len(result) == 1 and len(result[0]["boxes"]) == 100
