import pytest
import torch
from omegaconf import OmegaConf

import hydet


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


def test_missing_value_is_named():
    with pytest.raises(hydet.ConfigError, match="lr"):
        hydet.instantiate(OmegaConf.create({"_target_": "builtins.dict", "lr": "???"}))
