import builtins

import pytest
import torch

from hydet.modeling import FPN, TimmBackbone, checkpoint_activations

TIMM = {
    "resnet10t": ["res1", "res2", "res3", "res4", "res5"],
    "convnext_atto": ["res2", "res3", "res4", "res5"],
    "swin_tiny_patch4_window7_224": ["res2", "res3", "res4", "res5"],  # gives (N, H, W, C)
    "vit_tiny_patch16_224": ["feat0", "feat1", "feat2"],
    "mobilenetv3_small_050": ["res1", "res2", "res3", "res4", "res5"],
}


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_features_have_declared_shapes(name, check_declared_shapes):
    pytest.importorskip("timm")
    with torch.device("meta"):
        backbone = TimmBackbone(model_name=name, in_channels=5)
    assert list(backbone.output_shape()) == TIMM[name]
    check_declared_shapes(backbone, channels=5)


def test_out_indices_and_out_names_select_features():
    pytest.importorskip("timm")
    backbone = TimmBackbone(model_name="resnet10t", out_indices=[2, 3], out_names=["fine", "coarse"])
    assert {n: s.stride for n, s in backbone.output_shape().items()} == {"fine": 8, "coarse": 16}
    pyramid = FPN(bottom_up=backbone, in_features=["fine", "coarse"], out_channels=8)
    assert pyramid(torch.zeros(2, 3, 32, 32))["p3"].shape == (2, 8, 4, 4)
    with pytest.raises(ValueError, match="needs 2 names"):
        TimmBackbone(model_name="resnet10t", out_indices=[2, 3], out_names=["one"])


def test_network_with_fixed_size_sets_square_pad():
    pytest.importorskip("timm")
    with torch.device("meta"):
        fixed, free = TimmBackbone(model_name="hiera_tiny_224"), TimmBackbone(model_name="resnet10t")
    assert fixed.padding_constraints == {"square_size": 224}
    assert free.padding_constraints == {} and free.size_divisibility == 32


def test_error_of_unknown_network_lists_similar_names():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"'resnet5'.*similar names: .*resnet50"):
        TimmBackbone(model_name="resnet5")


def test_missing_timm_raises_import_error_with_install_command(monkeypatch):
    real = builtins.__import__

    def without_timm(name, *args, **kwargs):
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[timm\]'"):
        TimmBackbone(model_name="resnet10t")


def test_training_does_not_change_frozen_network():
    pytest.importorskip("timm")
    backbone = TimmBackbone(model_name="resnet10t", frozen=True).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 32, 32))
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_checkpointing_can_be_switched_on_and_off():
    pytest.importorskip("timm")
    backbone = checkpoint_activations(
        TimmBackbone(model_name="vit_tiny_patch16_224", model_options={"depth": 3})
    )
    assert backbone.use_act_checkpoint is True
    backbone(torch.randn(1, 3, 32, 32))["feat2"].sum().backward()
    checkpoint_activations(backbone, enabled=False)
    assert backbone.use_act_checkpoint is False
