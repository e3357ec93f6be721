"""Every choice that ``conf/`` offers composes and builds."""

from pathlib import Path

import pytest
import torch
import yaml

import hydet
import hydet.conf

TREE = Path(hydet.conf.__file__).parent
MODELS = sorted(p.stem for p in (TREE / "model").glob("*.yaml"))
BACKBONES = sorted(p.stem for p in (TREE / "backbone").glob("*.yaml"))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_builds_on_every_backbone(model, backbone):
    cfg = hydet.compose(f"model={model}", f"backbone={backbone}", "data=coco_instance")
    with torch.device("meta"):
        built = hydet.instantiate(cfg.model)
    assert sum(p.numel() for p in built.parameters()) > 1e6
    assert all(p.is_meta for p in built.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_every_model_builds_slim(model):
    with torch.device("meta"):
        hydet.instantiate(hydet.compose(f"model={model}", "data=shapes").model)


@pytest.mark.parametrize("file", sorted(TREE.rglob("*.yaml")), ids=lambda p: str(p.relative_to(TREE)))
def test_every_file_is_yaml_and_says_what_it_is(file):
    text = file.read_text()
    assert text.startswith("#"), "the first line says what the option is"
    assert isinstance(yaml.safe_load(text), dict | type(None))


def groups(name):
    return sorted(p.stem for p in (TREE / name).glob("*.yaml"))


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (g, o)
        for g in ("data", "augment", "optimizer", "schedule", "trainer", "logger", "size")
        for o in groups(g)
    ],
)
def test_every_option_composes(group, option):
    hydet.compose(f"{group}={option}")
