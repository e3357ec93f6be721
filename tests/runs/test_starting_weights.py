"""Weights of published recipes, and frozen parts that stay random without weights."""

import pytest
import torch

import hydet
from hydet.config import ConfigError
from hydet.runs.starting_weights import describe_random_parts, known_class_names, recipe_weights

RECIPE = "COCO-Detection/retinanet_R_50_FPN_3x"


def test_a_recipe_names_the_weights_that_it_starts_from():
    assert recipe_weights(RECIPE) == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert recipe_weights("Cityscapes/mask_rcnn_R_50_FPN").startswith(
        "detectron2://COCO-InstanceSegmentation/"
    )


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (None, "and no experiment is chosen; experiment=RECIPE chooses one, init_from=SOURCE names weights"),
        ("mine", "and experiment=mine is not one"),
        ("new_baselines/mask_rcnn_R_50_FPN_50ep_LSJ", "is not one"),
        ("Misc/scratch_mask_rcnn_R_50_FPN_3x_gn", "no weights are known that Misc/scratch.* starts from"),
    ],
)
def test_other_experiments_have_no_known_weights(experiment, message):
    with pytest.raises(ConfigError, match=message):
        recipe_weights(experiment)


def test_class_names_of_a_trained_model():
    assert known_class_names(RECIPE)[:2] == ("person", "bicycle")
    assert known_class_names("LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x") == ()
    assert known_class_names("weights.pth") == ()


def describe(*overrides, experiment=None):
    config = hydet.compose("model=retinanet", *overrides)
    with torch.device("meta"):
        return describe_random_parts(config, hydet.instantiate(config.model), experiment)


def test_frozen_norms_and_weights_are_named_with_a_remedy():
    line = describe("backbone=r18_slim", "norm=FrozenBN", "freeze_at=2")
    assert line == (
        "training from scratch: 20 frozen norms and 5 frozen weights keep their random weights, since init_from is null; "
        "init_from=SOURCE names weights, norm=BN freeze_at=0 freezes nothing"
    )
    line = describe("backbone=r18_slim", "norm=GN", "freeze_at=1", experiment=RECIPE)
    assert "training from scratch: 3 frozen weights" in line
    assert "init_from=recipe starts from detectron2://ImageNetPretrained/MSRA/R-50.pkl" in line


def test_a_model_that_trains_as_a_whole_or_loads_weights_needs_no_line():
    assert describe() is None  # the quick preset
    assert describe("backbone=torchvision", "backbone.model_name=resnet18") is None
    frozen = torch.nn.Linear(1, 1).requires_grad_(False)
    for backbone, argument in (
        ("timm", "backbone.pretrained=true"),
        ("torchvision", "backbone.weights=DEFAULT"),
    ):
        config = hydet.compose("model=retinanet", f"backbone={backbone}")
        assert describe_random_parts(config, frozen, None) is not None
        config = hydet.compose("model=retinanet", f"backbone={backbone}", argument)
        assert describe_random_parts(config, frozen, None) is None
