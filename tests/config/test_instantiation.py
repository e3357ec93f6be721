"""``hydet.instantiate`` and ``check_targets``."""

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
    built = hydet.instantiate(OmegaConf.create({"_target_": "builtins.dict", "a": [1, {"b": [2]}]}))
    assert type(built["a"]) is list and type(built["a"][1]) is dict and type(built["a"][1]["b"]) is list


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


def test_unknown_argument_that_a_class_passes_to_its_base_names_the_nearest():
    with pytest.raises(
        hydet.ConfigError,
        match=r"^model.roi_heads: StandardROIHeads has no argument 'num_clases'; nearest: 'num_classes'",
    ):
        cfg = hydet.compose("+model.roi_heads.num_clases=3")
        hydet.instantiate(cfg.model)


def test_target_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(hydet.ConfigError, match=r"torch.nn.Linaer.*nearest: 'Linear'"):
        hydet.instantiate({"_target_": "torch.nn.Linaer"})


def test_an_error_of_a_constructor_is_prefixed_with_its_key():
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


def test_nested_targets_outside_the_allowed_prefixes_are_refused():
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
def test_objects_that_an_allowed_package_only_imports_are_refused(target):
    with pytest.raises(hydet.ConfigError, match=f"{target} is outside.*allow="):
        check_targets({"part": [{"_target_": target}]}, ["hydet", "torch.nn"])


def test_objects_that_an_allowed_package_defines_are_allowed():
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


def test_a_resolved_string_is_not_resolved_again():
    config = OmegaConf.create({"_target_": "builtins.dict", "a": r"\${oc.env:HOME}"})
    assert hydet.instantiate(config) == {"a": "${oc.env:HOME}"}


def test_arguments_are_built_in_the_order_of_the_config():
    torch.manual_seed(0)
    expected = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)]
    linear = {"_target_": "torch.nn.Linear", "in_features": 2}
    torch.manual_seed(0)
    built = hydet.instantiate(
        {"_target_": "builtins.dict", "b": {**linear, "out_features": 2}, "a": {**linear, "out_features": 3}}
    )
    for module, layer in zip(expected, (built["b"], built["a"]), strict=True):
        assert torch.equal(module.weight, layer.weight)


@pytest.mark.parametrize(("key", "value"), [("_partial_", "yes"), ("_args_", "abc"), ("_recursive_", 1)])
def test_special_keys_have_types(key, value):
    with pytest.raises(hydet.ConfigError, match=f"^{key} must be"):
        hydet.instantiate({"_target_": "builtins.dict", key: value})
