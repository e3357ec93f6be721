"""Parts of a run from a composed config."""

import pytest
import torch
from omegaconf import OmegaConf

import hydet
from hydet.config import ConfigError
from hydet.data import Metadata, ShapesDataset
from hydet.runs.build import (
    build_dataset,
    build_evaluators,
    build_mapper,
    build_model,
    check_fits,
    fill_names,
    some_names,
)


class Segments(torch.nn.Module):
    tasks = ("panoptic",)


class Boxes(torch.nn.Module):
    pass


class FastBoxes(torch.nn.Module):
    needs_proposals = True


@pytest.fixture
def config(shapes_overrides):
    return hydet.compose(*shapes_overrides)


def test_a_model_of_segments_alone_receives_masks_and_semantic_labels(config):
    dataset = ShapesDataset(num_images=1, image_size=(64, 64))
    entry = build_mapper(config, Segments(), training=True)(dataset[0], 0)
    assert entry["sem_seg"].shape == entry["instances"].gt_masks.tensor.shape[1:]
    assert "sem_seg" not in build_mapper(config, Boxes(), training=True)(dataset[0], 0)


@pytest.mark.parametrize("target", ["torch.nn.Identity", "hydet.modeling.LastLevelMaxPool", "builtins.dict"])
def test_a_part_is_no_detector(target):
    with pytest.raises(ConfigError, match="not a detector"):
        build_model(OmegaConf.create({"model": {"_target_": target}}))


def test_null_names_are_those_of_the_data(config):
    OmegaConf.set_struct(config, False)
    config.data.class_names = None
    config.num_classes = 2
    fill_names(config, Metadata(thing_classes=("cat", "dog"), stuff_classes=("sky",)))
    assert list(config.data.class_names) == ["cat", "dog"]
    config.num_classes = 5
    with pytest.raises(ConfigError, match=r"num_classes is 5.*\(2\) cat, dog"):
        fill_names(config, Metadata(thing_classes=("cat", "dog")))


def test_a_split_of_other_classes_or_without_data_is_refused(config):
    with pytest.raises(ConfigError, match=r"data.val has classes \(3\).*trained on \(1\) cat"):
        build_dataset(config, "val", metadata=Metadata(thing_classes=("cat",)))
    OmegaConf.set_struct(config, False)
    config.data.val = None
    with pytest.raises(ConfigError, match=r"data\.val is not set: data=shapes"):
        build_dataset(config, "val")


def test_evaluators_fit_the_tasks_and_custom_names_are_always_built(config):
    OmegaConf.set_struct(config, False)
    dataset = build_dataset(config, "val")
    assert [type(e).__name__ for e in build_evaluators(config, Boxes(), dataset)] == ["CocoEvaluator"]
    config.evaluators.mine = config.evaluators.proposals
    assert len(build_evaluators(config, Boxes(), dataset)) == 2
    config.evaluators.mine = {"_target_": "builtins.dict", "_partial_": True}
    with pytest.raises(ConfigError, match=r"evaluators\.mine"):
        build_evaluators(config, Boxes(), [])


def test_a_model_without_a_proposal_generator_needs_data_with_proposals(config):
    check_fits(config, FastBoxes(), ShapesDataset(num_images=1, num_proposals=4))
    check_fits(config, Boxes(), ShapesDataset(num_images=1))
    with pytest.raises(ConfigError, match=r"proposals\.train=FILE"):
        check_fits(config, FastBoxes(), ShapesDataset(num_images=1))


def test_data_without_the_labels_of_the_model_are_refused(config):
    class Stuff(torch.nn.Module):
        tasks = ("semantic",)

    check_fits(config, Segments(), ShapesDataset(num_images=1))
    OmegaConf.set_struct(config, False)
    config.num_stuff_classes = 7
    with pytest.raises(ConfigError, match=r"data\.stuff_names has 7 names.*data\.stuff_names=null"):
        check_fits(config, Stuff(), ShapesDataset(num_images=1))


def test_some_names():
    assert some_names(["a", "b"]) == "(2) a, b"
    assert some_names("abcdefg") == "(7) a, b, c, d, e, ..."


def test_names_with_the_form_of_an_interpolation_stay_text(config):
    config.data.class_names = None
    config.num_classes = 2
    fill_names(config, Metadata(thing_classes=("${price}", "a\\${b}")))
    assert list(config.data.class_names) == ["${price}", "a\\${b}"]
