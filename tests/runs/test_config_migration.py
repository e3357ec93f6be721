"""Configs and a checkpoint that version 0.1 wrote still work.

``data/configs_0.1.json.gz`` holds the resolved configs of model options, backbone options and experiments of 0.1;
``data/checkpoint_0.1`` is a very narrow Mask R-CNN after two steps, without its training state, and
``data/checkpoint_0.1_expected.json`` what 0.1 itself measured and detected with it on the CPU.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch

from hydet.config import build_targets, literal_config
from hydet.data import InputMapper
from hydet.runs.build import build_mapper
from hydet.runs.config_migration import (
    RENAMED_ARGUMENTS,
    RENAMED_KEYS,
    RENAMED_TARGETS,
    migrate_config,
)
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.runs.stored_config import BUILT_SECTIONS, checked_config

DATA = Path(__file__).parent / "data"
OLD_CHECKPOINT = DATA / "checkpoint_0.1"
EXPECTED = json.loads((DATA / "checkpoint_0.1_expected.json").read_text(encoding="utf-8"))
OLD_CONFIGS = json.loads(gzip.decompress((DATA / "configs_0.1.json.gz").read_bytes()))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # files of the experiments' data do not exist
@pytest.mark.parametrize("name", OLD_CONFIGS)
def test_configs_of_version_0_1_build_the_same_parts(name):
    if "timm" in name:
        pytest.importorskip("timm")
    config = checked_config(OLD_CONFIGS[name], name="config.yaml")
    with torch.device("meta"):
        build_targets(config["model"], "model")
    mapper = build_mapper(literal_config(config), torch.nn.Identity(), training=False)
    assert isinstance(mapper, InputMapper)
    assert all(callable(build_targets(node)) for node in config["evaluators"].values())
    if config["data"]["name"].startswith("shapes"):
        assert len(build_targets(config["data"]["val"])) > 0


def test_the_old_configs_cover_what_they_must():
    text = json.dumps(OLD_CONFIGS)
    for target in (
        "make_resnet",
        "channels_at_stride",
        "ResNet.make_stage",
        "SimpleFeaturePyramid",
        "PanopticFPN",
    ):
        assert f"hydet.modeling.{target}" in text


@pytest.mark.parametrize("section", BUILT_SECTIONS)
def test_the_old_checkpoint_has_every_section(section):
    assert open_checkpoint(OLD_CHECKPOINT, device="cpu").config[section]


def test_a_checkpoint_of_version_0_1_evaluates_as_then(command, tmp_path):
    command(
        "evaluate", f"checkpoint={OLD_CHECKPOINT}", "device=cpu", f"output_dir={tmp_path}",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.pop("metric") == EXPECTED["metrics"]["metric"]
    for name, value in EXPECTED["metrics"].items():
        if name != "metric":
            # Losses depend on sampled regions, which version 0.1 drew with another seed.
            tolerance = {"rel": 0.1} if name.startswith("val_loss/") else {"abs": 1e-3}
            assert metrics[name] == pytest.approx(value, **tolerance), name
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for image_id in (1, 2):
        old = [d for d in EXPECTED["detections"] if d["image_id"] == image_id]
        new = sorted((d for d in results if d["image_id"] == image_id), key=lambda d: -d["score"])[: len(old)]
        for a, b in zip(old, new, strict=True):
            assert [a["score"], *a["bbox"]] == pytest.approx([b["score"], *b["bbox"]], abs=1e-3)


def test_a_checkpoint_of_version_0_1_predicts(coco_folder, command, tmp_path):
    out = command(
        "predict",
        f"checkpoint={OLD_CHECKPOINT}",
        "device=cpu",
        f"input={coco_folder}/val",
        f"output_dir={tmp_path}",
    )
    assert "3 images" in out
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_a_checkpoint_of_version_0_1_initializes_a_run(shapes_overrides, command, tmp_path):
    out = command(
        "train",
        *shapes_overrides,
        "trainer.max_steps=1",
        f"init_from={OLD_CHECKPOINT}",
        f"output_dir={tmp_path}/run",
    )
    assert "not loaded because of their shape" in out


def test_targets_keys_and_arguments_are_renamed(monkeypatch):
    from hydet.runs import config_migration

    monkeypatch.setattr(config_migration, "RENAMED_TARGETS", {"old.Part": "new.Part"})
    monkeypatch.setattr(
        config_migration, "RENAMED_KEYS", {"test.size": "evaluation.batch_size", "gone": "a.b.c"}
    )
    monkeypatch.setattr(
        config_migration, "RENAMED_ARGUMENTS", {"new.Part": {"width": "channels", "dropped": None}}
    )
    old = {
        "model": {"parts": [{"_target_": "old.Part", "width": 3, "dropped": 1, "depth": 2}]},
        "test": {"size": 4, "other": 5},
    }
    assert migrate_config(old) == {
        "model": {"parts": [{"_target_": "new.Part", "channels": 3, "depth": 2}]},
        "test": {"other": 5},
        "evaluation": {"batch_size": 4},
    }
    assert old["model"]["parts"][0]["_target_"] == "old.Part"


def test_a_key_that_has_a_value_already_keeps_it(monkeypatch):
    from hydet.runs import config_migration

    monkeypatch.setattr(config_migration, "RENAMED_KEYS", {"old": "new.key"})
    assert migrate_config({"old": 1, "new": {"key": 2}}) == {"new": {"key": 2}}
    assert migrate_config({"old": 1, "new": 3}) == {"new": 3}


def test_tables_of_the_migration_lead_to_what_exists():
    import hydra.utils

    for target in (*RENAMED_TARGETS.values(), *RENAMED_ARGUMENTS):
        assert callable(hydra.utils.get_object(target))
    assert not set(RENAMED_TARGETS) & set(RENAMED_TARGETS.values())
    assert not set(RENAMED_KEYS) & set(RENAMED_KEYS.values())
