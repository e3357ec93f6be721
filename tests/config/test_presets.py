"""Presets: the settings that go with data, chosen by ``data.preset`` unless ``preset=...`` is given."""

import sys

import pytest
from omegaconf import OmegaConf

import hydet
from hydet.config import complete_command_line

DATA = [
    "shapes",
    "shapes_rotated",
    "coco_instance",
    "coco_keypoint",
    "coco_rotated",
    "voc",
    "cityscapes",
    "lvis_v1",
]


def plain(*overrides):
    config = hydet.compose(*overrides)
    del config.output_dir  # holds the time
    return OmegaConf.to_container(config)


@pytest.mark.parametrize("data", DATA)
def test_data_option_sets_only_data(data):
    config, other = plain(f"data={data}", "preset=none"), plain("data=coco_panoptic", "preset=none")
    assert config.pop("data") != other.pop("data")
    assert config == other


@pytest.mark.parametrize(
    ("overrides", "preset", "backbone_depth"),
    [
        ([], "quick", 18),
        (["data=shapes_rotated"], "quick", 18),
        (["data=shapes", "preset=none"], "none", 50),
        (["model=mask_rcnn_fpn", "backbone=r50"], "quick", 50),
        (["data=coco_instance"], "auto", 50),
        (["data=coco_instance", "preset=quick"], "quick", 18),
        (["data=lvis_v1"], "lvis", 50),
        (["data=lvis_v05", "preset=none"], "none", 50),
        (["experiment=COCO-Detection/fcos_R_50_FPN_1x"], "auto", 50),
        (["experiment=LVISv1-InstanceSegmentation/mask_rcnn_R_101_FPN_1x"], "lvis", 101),
    ],
)
def test_preset_follows_the_data_unless_one_is_given(overrides, preset, backbone_depth):
    config = hydet.compose(*overrides)
    assert config.preset.name == preset
    assert config.backbone.depth == backbone_depth


def test_option_given_on_the_command_line_replaces_the_one_of_the_preset():
    config = hydet.compose("optimizer=sgd", "trainer.max_steps=3", "norm=GN")
    assert config.optimizer._target_ == "torch.optim.SGD"
    assert (config.trainer.max_steps, config.norm, config.batch_size) == (3, "GN", 8)


def test_value_that_only_the_options_of_the_preset_have_can_be_given():
    config = hydet.compose("schedule.warmup_factor=0.5", "size.mask_conv_dims=[8]")
    assert config.schedule.warmup_factor == 0.5
    assert config.model.roi_heads.mask_head.conv_dims == [8]


def test_data_of_a_user_may_name_a_preset_of_a_user(tmp_path):
    for name, text in {
        "data/mine.yaml": "defaults: [shapes]\nname: mine\npreset: gentle\n",
        "preset/gentle.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: adamw\n  - _self_\n"
        "preset: {name: gentle}\nbatch_size: 4\n",
    }.items():
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
    config = hydet.compose("data=mine", config_dir=tmp_path)
    assert (config.preset.name, config.batch_size, config.optimizer.lr) == ("gentle", 4, 0.0002)
    assert hydet.compose("data=mine", "preset=none", config_dir=tmp_path).batch_size == 16


@pytest.mark.parametrize(
    ("arguments", "completed"),
    [
        ([], ["preset=quick"]),
        (["--cfg", "job"], ["--cfg", "job", "preset=quick"]),
        (["-m", "seed=1,2", "-c", "job"], ["-m", "preset=quick", "seed=1,2", "-c", "job"]),
        (["data=coco_instance"], ["data=coco_instance"]),
        (["preset=none", "seed=1"], ["preset=none", "seed=1"]),
    ],
)
def test_command_line_names_the_preset_for_hydra(arguments, completed):
    assert complete_command_line(arguments, config_name="train") == completed


def test_training_prints_the_preset_and_how_to_turn_it_off(tmp_path, capsys):
    from hydet.cli import train

    tiny = [
        "data.train.num_images=2",
        "data.val=null",
        "trainer.max_steps=1",
        "batch_size=1",
        "num_workers=0",
    ]
    status = train.main(["model=faster_rcnn_fpn", *tiny, "logger=console", f"output_dir={tmp_path}"])
    out = capsys.readouterr().out
    assert status == 0, sys.stderr
    assert "preset quick:" in out and "preset=none" in out.replace("\n", " ")


def test_evaluation_takes_any_data_option():
    for data in DATA:
        config = hydet.compose("checkpoint=x", f"data={data}", config_name="evaluate")
        assert config.data.name == data
        assert "optimizer" not in config and "model" not in config
