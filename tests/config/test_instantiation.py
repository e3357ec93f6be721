import copy
import pickle

import pytest
import torch
from omegaconf import OmegaConf

import hydet
from hydet.config import check_targets


def test_builds_nested_targets_with_plain_arguments():
    config = OmegaConf.create(
        {
            "width": 5,
            "net": {
                "_target_": "torch.nn.Sequential",
                "_args_": [{"_target_": "torch.nn.Linear", "in_features": "${width}", "out_features": 2}],
            },
        }
    )
    assert hydet.instantiate(config.net)[0].in_features == 5


def test_no_omegaconf_object_reaches_a_component():
    found = hydet.instantiate(OmegaConf.create({"_target_": "builtins.dict", "a": [1, {"b": [2]}]}))
    assert type(found["a"]) is list and type(found["a"][1]) is dict and type(found["a"][1]["b"]) is list


def test_partial_waits_for_its_last_argument():
    make = hydet.instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert make([torch.zeros(1, requires_grad=True)]).defaults["lr"] == 0.5


def test_unknown_argument_names_the_key_and_the_nearest():
    config = OmegaConf.create(
        {"model": {"head": {"_target_": "torch.nn.Linear", "in_feature": 3, "out_features": 1}}}
    )
    with pytest.raises(
        hydet.ConfigError, match=r"model.head: Linear has no argument 'in_feature'; nearest: 'in_features'"
    ):
        hydet.instantiate(config.model)


def test_unknown_argument_that_a_class_hands_to_its_base_names_the_nearest():
    with pytest.raises(
        hydet.ConfigError,
        match=r"^model.roi_heads: StandardROIHeads has no argument 'num_clases'; nearest: 'num_classes'",
    ):
        cfg = hydet.compose("+model.roi_heads.num_clases=3")
        hydet.instantiate(cfg.model)


def test_target_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(hydet.ConfigError, match=r"torch.nn.Linaer.*nearest: 'Linear'"):
        hydet.instantiate({"_target_": "torch.nn.Linaer"})


def test_an_error_of_the_constructor_keeps_its_words_and_gains_the_key():
    config = OmegaConf.create(
        {
            "a": {
                "_target_": "torch.nn.Conv2d",
                "in_channels": 3,
                "out_channels": 4,
                "kernel_size": 1,
                "groups": 2,
            }
        }
    )
    with pytest.raises(hydet.ConfigError, match=r"^a: in_channels must be divisible by groups"):
        hydet.instantiate(config.a)


def test_targets_outside_the_allowed_prefixes_are_refused_wherever_they_hide():
    config = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.system", "command": "true"}]}
    with pytest.raises(hydet.ConfigError, match=r"os.system is outside"):
        hydet.instantiate(config, allowed=["torch.nn", "hydet"])


def test_a_prefix_allows_whole_names_only():
    with pytest.raises(hydet.ConfigError, match="outside"):
        hydet.instantiate({"_target_": "torch.nnx.Linear"}, allowed=["torch.nn"])


@pytest.mark.parametrize(
    "target",
    [
        "hydet.config.overrides.Path.unlink",
        "torch.nn.modules.module.torch.load",
        "hydet.config.composition.copy.copy",
    ],
)
def test_what_an_allowed_package_merely_imports_is_not_allowed(target):
    with pytest.raises(hydet.ConfigError, match=f"{target} is outside.*allow="):
        check_targets({"part": [{"_target_": target}]}, ["hydet", "torch.nn"])


def test_what_an_allowed_package_defines_is_allowed_wherever_it_is_exported():
    names = (
        "hydet.modeling.FPN",
        "hydet.modeling.ResNet.make_stage",
        "torch.nn.Linear",
        "torch.nn.functional.relu",
    )
    check_targets([{"_target_": name} for name in names], ["hydet", "torch.nn"])
    check_targets(hydet.compose("model=mask_rcnn_fpn").model, ["hydet"])


def test_missing_value_is_named():
    with pytest.raises(hydet.ConfigError, match="lr"):
        hydet.instantiate(OmegaConf.create({"_target_": "builtins.dict", "lr": "???"}))


def test_error_of_a_partial_names_its_key_when_the_receiver_calls_it():
    node = {
        "_target_": "torch.nn.Conv2d",
        "_partial_": True,
        "out_channels": 4,
        "kernel_size": 1,
        "groups": 3,
    }
    config = OmegaConf.create({"model": {"stem": node}})
    make = hydet.instantiate(config.model)["stem"]
    with pytest.raises(hydet.ConfigError, match=r"^model.stem: in_channels must be divisible by groups"):
        make(in_channels=4)


def test_partial_can_be_copied_and_pickled():
    make = hydet.instantiate({"_target_": "torch.nn.Linear", "_partial_": True, "in_features": 3})
    for again in (copy.deepcopy(make), pickle.loads(pickle.dumps(make))):
        assert again(out_features=2).weight.shape == (2, 3)
