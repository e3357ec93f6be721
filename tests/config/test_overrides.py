"""Overrides as typed: arguments that a YAML leaves at the default, folders of configs, sweeps over options."""

import pytest
from omegaconf import OmegaConf

import hydet
from hydet.config import complete_command_line
from hydet.config.arguments import arguments_of
from hydet.config.overrides import choices, missing_arguments, split_command_line, with_search_path

CONFIG = OmegaConf.create(
    {
        "width": 1,
        "layer": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": "${width}"},
        "heads": {"_target_": "hydet.modeling.StandardROIHeads", "box_head": {"_target_": "nowhere.Head"}},
        "nothing": None,
        "elsewhere": "${layer}",
    }
)


def complete(*arguments):
    """Return the completed command line without the preset, see ``test_presets.py``."""
    completed = complete_command_line(arguments, config_name="train")
    return [argument for argument in completed if argument != "preset=quick"]


@pytest.mark.parametrize(
    ("override", "missing"),
    [
        ("layer.bias=false", True),
        ("layer.in_features=4", False),
        ("layer.biass=false", False),
        ("+layer.bias=false", False),
        ("++layer.bias=false", False),
        ("~layer.in_features", False),
        ("heads.train_on_pred_boxes=true", True),
        ("heads.proposal_append_gt=false", True),  # an argument of the base class
        ("heads.proposal_matcher.thresholds=[0.5]", True),  # a whole part that the YAML leaves out
        ("heads.box_head.width=3", False),
        ("nothing.bias=1", False),
        ("elsewhere.bias=1", False),
        ("width=2", False),
    ],
)
def test_an_argument_that_the_yaml_leaves_out_differs_from_a_misspelled_key(override, missing):
    assert missing_arguments([override], CONFIG) == [override] * missing


def test_arguments_of_a_class_include_those_it_passes_to_its_base():
    import torch

    class Base:
        def __init__(self, *, a, b=1):
            pass

    class Closed(Base):
        def __init__(self, *, c):
            super().__init__(a=c)

    class Open(Base):
        def __init__(self, *, c, **kwargs):
            super().__init__(**kwargs)

    assert arguments_of(Closed) == ["c"]
    assert arguments_of(Open) == ["c", "a", "b"]
    assert arguments_of(torch.nn.Linear)[:2] == ["in_features", "out_features"]
    assert arguments_of(dict) is None
    assert arguments_of(lambda x, **rest: x) is None


def test_choices_are_options_and_root_keys_and_the_first_of_a_sweep():
    typed = [
        "model=fcos,retinanet",
        "model/roi_heads/box_head@model.x=mine",
        "seed=3",
        "optimizer.lr=1",
        "+a=1",
        "~b",
    ]
    assert choices(typed) == ["model=fcos", "model/roi_heads/box_head@model.x=mine", "seed=3"]


def test_folders_precede_an_existing_search_path():
    overrides = with_search_path(["a=1", "hydra.searchpath=[pkg://mine]"], ["/x y/o'clock"])
    assert overrides == ["hydra.searchpath=['file:///x y/o\\'clock','pkg://mine']", "a=1"]


def test_flags_are_separated_from_overrides(tmp_path):
    expected = [f"hydra.searchpath=['file://{tmp_path}']", "model=fcos"]
    assert split_command_line(["--config-dir", str(tmp_path), "model=fcos", "--cfg", "job"]) == expected
    assert split_command_line([f"--config-dir={tmp_path}", "-m", "model=fcos"]) == expected


def test_folder_names_with_special_characters(tmp_path):
    folder = tmp_path / "my conf, it's [mine]"
    (folder / "backbone").mkdir(parents=True)
    (folder / "backbone" / "mine.yaml").write_text("_target_: torch.nn.Identity\n", encoding="utf-8")
    assert hydet.compose("backbone=mine", config_dir=folder).backbone._target_ == "torch.nn.Identity"


def test_command_lines_receive_the_plus_that_hydra_needs():
    beta = "model.roi_heads.box_predictor.smooth_l1_beta=0.1"
    assert complete("model=faster_rcnn_fpn", beta, "--cfg", "job") == [
        "model=faster_rcnn_fpn",
        f"+{beta}",
        "--cfg",
        "job",
    ]
    assert complete("model=faster_rcnn_fpn", "optimizer.lrr=1") == [
        "model=faster_rcnn_fpn",
        "optimizer.lrr=1",
    ]
    assert complete("-m", "seed=1,2") == ["-m", "seed=1,2"]


def test_a_sweep_over_models_can_set_keys_that_only_they_have():
    assert complete("-m", "model=fcos,retinanet", "model.num_classes=2", "optimizer.lr=1,2", "batch_size=4") == [
        "-m", "model=fcos,retinanet", "++model.num_classes=2", "optimizer.lr=1,2", "batch_size=4"
    ]  # fmt: skip


def test_hydra_reports_what_cannot_be_parsed():
    for arguments in (["optimizer.lr=["], ["model=no_such_model", "a.b=1"], ["--no-such-flag", "a.b=1"]):
        assert complete(*arguments) == arguments
