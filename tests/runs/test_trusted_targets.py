"""The lists of trusted names agree with conf/, and nothing else can be built from a stored config."""

from pathlib import Path

import pytest
import yaml

import hydet.conf
from hydet.config import ConfigError, find_targets
from hydet.runs.trusted_targets import NEEDS_PERMISSION, NEVER_BUILT, TRUSTED_TARGETS, disarm, trusted

CONF = Path(hydet.conf.__file__).parent


def targets_of_conf():
    targets = set()
    for file in CONF.rglob("*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        targets |= {node["_target_"] for _, node in find_targets(content)}
    return {target for target in targets if "${" not in target}


def is_trusted(target):
    return any(trusted(section)(target) is None for section in TRUSTED_TARGETS)


def test_every_target_of_conf_is_trusted_or_never_built_from_a_stored_config():
    unknown = {t for t in targets_of_conf() if not is_trusted(t)} - NEVER_BUILT - NEEDS_PERMISSION.keys()
    assert not unknown, f"add these to hydet.runs.trusted_targets: {sorted(unknown)}"
    assert not {target for target in NEVER_BUILT if is_trusted(target)}


@pytest.mark.parametrize("name", sorted(set().union(*TRUSTED_TARGETS.values())))
def test_a_trusted_name_exists(name):
    import hydra.utils

    assert callable(hydra.utils.get_object(name))


@pytest.mark.parametrize(
    "target",
    [
        "hydet.modeling.StandardROIHeads",
        "hydet.layers.NaiveSyncBatchNorm",
        "torch.nn.GELU",
    ],
)
def test_modules_are_trusted_in_a_model_and_nowhere_else(target):
    assert trusted("model")(target) is None
    assert all("outside" in trusted(section)(target) for section in ("augment", "data", "evaluators"))


@pytest.mark.parametrize("target", ["hydet.data.RandomCrop", "torchvision.transforms.v2.GaussianBlur"])
def test_transforms_are_trusted_in_augment_and_nowhere_else(target):
    assert trusted("augment")(target) is None
    assert all("outside" in trusted(section)(target) for section in ("model", "data", "evaluators"))


def test_allowing_a_package_permits_what_it_defines_and_parts_that_it_exports(tmp_path, monkeypatch):
    (tmp_path / "gated_parts.py").write_text(
        "import os\nfrom torch.nn import Linear\nclass Gate: pass\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check = trusted("model", ["gated_parts"])
    assert check("gated_parts.Gate") is None and check("gated_parts.Linear") is None
    assert "outside" in check("gated_parts.os.system")
    assert "allow=[gated_parts]" in trusted("model")("gated_parts.Gate")


def test_mmdet_needs_permission_because_it_resolves_names_itself():
    (name, package), *_ = NEEDS_PERMISSION.items()
    assert f"allow=[{package}]" in trusted("model")(name)
    assert trusted("model", [package])(name) is None


@pytest.mark.parametrize("prefix", ["", "os;", "a..b", "a b", None, 3])
def test_an_allowed_prefix_is_a_dotted_name(prefix):
    with pytest.raises(ConfigError, match="allow="):
        trusted("model", [prefix])


def test_weights_of_other_libraries_are_neither_downloaded_nor_read():
    timm = {"_target_": "hydet.modeling.TimmBackbone", "model_name": "resnet18", "pretrained": True}
    torchvision = {
        "_target_": "hydet.modeling.TorchvisionBackbone",
        "model_name": "resnet18",
        "weights": "DEFAULT",
    }
    config = {"parts": [timm, torchvision]}
    disarm(config)
    assert "pretrained" not in timm and "weights" not in torchvision
