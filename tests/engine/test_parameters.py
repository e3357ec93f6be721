from functools import partial

import pytest
import torch
from torch import nn

from hydet.engine import ViTLayerDecay, build_optimizer, parameter_groups
from hydet.layers import CycleBatchNormList, LayerNorm


def make_model():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2))
    model.pos_embed = nn.Parameter(torch.zeros(1))
    return model


def setting_of(model, groups, key, default=None):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: g.get(key, default) for g in groups for p in g["params"]}


def test_norms_have_no_weight_decay_and_each_parameter_appears_once():
    model = make_model()
    groups = parameter_groups(model, weight_decay=0.1)
    decay = setting_of(model, groups, "weight_decay")
    assert len(decay) == sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert {n for n, v in decay.items() if v == 0.0} == {"1.weight", "1.bias", "2.weight", "2.bias"}
    assert decay["0.weight"] == decay["0.bias"] == 0.1


def test_settings_of_biases():
    model = make_model()
    groups = parameter_groups(
        model, weight_decay=0.1, bias_weight_decay=0.0, bias_lr_factor=2.0, norm_weight_decay=None
    )
    decay, factor = (setting_of(model, groups, key) for key in ("weight_decay", "lr_factor"))
    assert decay["0.bias"] == 0.0 and factor["0.bias"] == 2.0
    assert decay["1.bias"] == 0.0 and factor["1.bias"] == 2.0
    assert decay["1.weight"] == 0.1 and factor["1.weight"] == 1.0


def test_a_rule_for_biases_comes_after_that_for_norms():
    model = make_model()
    decay = setting_of(
        model, parameter_groups(model, weight_decay=0.1, bias_weight_decay=0.3), "weight_decay"
    )
    assert decay["1.bias"] == decay["0.bias"] == 0.3 and decay["1.weight"] == 0.0


@pytest.mark.parametrize(
    "norm", [LayerNorm(normalized_shape=4), CycleBatchNormList(length=2, num_features=4)], ids=["LN", "cycle"]
)
def test_norms_that_are_none_of_torch_decay_as_in_the_published_recipes(norm):
    model = nn.Sequential(norm)
    decay = setting_of(model, parameter_groups(model, weight_decay=0.1), "weight_decay")
    assert decay == {"0.weight": 0.1, "0.bias": 0.1}


def test_overrides_by_last_name_and_by_pattern():
    model = make_model()
    overrides = {"pos_embed": {"weight_decay": 0.0}, "3.*": {"lr_factor": 0.5}}
    groups = parameter_groups(model, weight_decay=0.1, overrides=overrides)
    assert setting_of(model, groups, "weight_decay")["pos_embed"] == 0.0
    factor = setting_of(model, groups, "lr_factor")
    assert factor["3.weight"] == factor["3.bias"] == 0.5 and factor["0.weight"] == 1.0
    with pytest.raises(ValueError, match="rpn"):
        parameter_groups(model, overrides={"rpn.*": {"lr_factor": 0.5}})
    with pytest.raises(ValueError, match="lr_mult"):
        parameter_groups(model, overrides={"3.*": {"lr_mult": 0.5}})


def test_shared_and_frozen_parameters():
    model = make_model()
    model.again = model[3]
    model[0].requires_grad_(False)
    groups = parameter_groups(model)
    assert sum(len(g["params"]) for g in groups) == 7
    with pytest.raises(ValueError, match="no trainable"):
        parameter_groups(model.requires_grad_(False))


def test_the_optimizer_applies_factors_and_its_own_decay():
    model = make_model()
    groups = parameter_groups(model, bias_lr_factor=2.0)
    optimizer = build_optimizer(partial(torch.optim.AdamW, lr=0.1, weight_decay=0.3), groups)
    lr = setting_of(model, optimizer.param_groups, "lr")
    decay = setting_of(model, optimizer.param_groups, "weight_decay")
    assert lr["0.bias"] == pytest.approx(0.2) and lr["0.weight"] == pytest.approx(0.1)
    assert decay["0.weight"] == 0.3 and decay["1.weight"] == 0.0


def test_layer_decay():
    factor = ViTLayerDecay(decay=0.5, num_layers=2)
    names = ["pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.norm1.weight"]
    assert [factor(f"backbone.net.{n}") for n in names] == [0.125, 0.125, 0.25, 0.5]
    assert factor("backbone.simfp_2.0.weight") == factor("roi_heads.box_head.fc1.weight") == 1.0
    assert factor("backbone.net.blocks.0.residual.conv1.weight") == 1.0
