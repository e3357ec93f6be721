"""Construction of mmdet modules from configs."""

import copy
import logging
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from hydet.interop.mmdet.building import build_from_config, take_unsaved_buffers
from hydet.modeling import MMDetBackbone, MMDetDetector

from .conftest import BACKBONE, NECK, PIXELS, retinanet


@pytest.mark.parametrize(
    "build",
    [
        lambda: MMDetBackbone(backbone=BACKBONE, output_shapes=[]),
        lambda: MMDetDetector(detector=retinanet(), **PIXELS),
        lambda: MMDetDetector(detector=torch.nn.Identity(), **PIXELS),
    ],
)
def test_missing_mmdet_error_names_the_packages_to_install(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(ImportError, match=r"MMDet\w+ needs mmdet .*pip install 'hydet\[mmdet\]'"):
        build()


@pytest.mark.parametrize("config", [{}, {"depth": 50}, 3, "ResNet", [], [{"depth": 50}]])
def test_invalid_config_raises(config):
    with pytest.raises(TypeError, match="a module or an mmdet config with 'type'"):
        build_from_config(config, owner="this")


def test_config_may_be_an_omegaconf_mapping(mmdet):
    config = OmegaConf.create({"size": 16, "neck": {**NECK, "out_channels": "${size}"}})
    before = copy.deepcopy(config)
    neck = build_from_config(config.neck, owner="this")
    assert neck.out_channels == 16 and config == before


def test_list_of_configs_builds_a_sequence(mmdet):
    second = {"type": "BFP", "in_channels": 16, "num_levels": 5, "refine_level": 1}
    features = [torch.randn(1, c, 32 // s, 32 // s) for c, s in zip(NECK["in_channels"], (1, 2, 4, 8))]
    outputs = build_from_config([NECK, second], owner="this")(features)
    assert [x.shape[2] for x in outputs] == [32, 16, 8, 4, 2]


def test_weights_are_initialized_by_init_cfg(mmdet):
    constant = {"type": "Constant", "val": 0.5, "layer": "Conv2d"}
    neck = build_from_config({**NECK, "init_cfg": constant}, owner="this")
    assert all((p == 0.5).all() for n, p in neck.named_parameters() if n.endswith("weight"))


def test_build_on_the_meta_device(mmdet):
    with torch.device("meta"):
        neck = build_from_config(NECK, owner="this")
        assert take_unsaved_buffers(neck) == {}
    assert all(p.is_meta for p in neck.parameters())


def test_unsaved_buffers_are_copied():
    module = nn.BatchNorm1d(2)
    module.register_buffer("scale", torch.ones(2), persistent=False)
    module.register_buffer("lost", torch.ones(2, device="meta"), persistent=False)
    values = take_unsaved_buffers(module)
    module.scale.zero_()
    assert values.keys() == {"scale"} and values["scale"].tolist() == [1, 1]
    assert not module.weight.is_meta


def test_build_changes_no_global_state_and_prints_nothing(mmdet, capfd):
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    scope, logger = DefaultScope.get_current_instance(), MMLogger.get_current_instance()
    level = logger.level
    build_from_config(NECK, owner="this")
    assert DefaultScope.get_current_instance() is scope
    assert MMLogger.get_current_instance() is logger and logger.level == level
    with pytest.raises(TypeError):
        build_from_config({**NECK, "unknown_argument": "red"}, owner="this")
    assert DefaultScope.get_current_instance() is scope and logger.level == level
    assert logger.isEnabledFor(logging.INFO)
    out, err = capfd.readouterr()
    assert "mmengine" not in out + err


def test_unknown_type_error_names_the_nearest_type(mmdet):
    with pytest.raises(ValueError, match="this: mmdet has no 'ResNett'; close: ResNe"):
        build_from_config({"type": "ResNett", "depth": 18}, owner="this")


@pytest.mark.parametrize(
    "name", ["subprocess.run", "mmengine.call_command", "mmengine.utils.install_package"]
)
def test_unregistered_type_is_never_called(mmdet, name, tmp_path):
    file = tmp_path / "made"
    for config in (
        {"type": name, "args": ["touch", str(file)], "cmd": ["touch", str(file)]},
        {**NECK, "init_cfg": [{"type": name}]},
    ):
        with pytest.raises(ValueError, match=f"'{name}' is not in mmdet's registries"):
            build_from_config(config, owner="this")
    assert not file.exists()


def test_type_may_be_a_scoped_name_or_a_class(mmdet):
    from mmdet.models import FPN

    assert isinstance(build_from_config({**NECK, "type": "mmdet.FPN"}, owner="this"), FPN)
    assert isinstance(build_from_config({**NECK, "type": FPN}, owner="this"), FPN)
