import pytest
import torch

from hydet.layers import ShapeSpec
from hydet.modeling import SemSegFPNHead
from hydet.modeling.meta_arch import sem_seg_head

SHAPES = {"p3": ShapeSpec(channels=8, stride=8), "p2": ShapeSpec(channels=8, stride=4)}
FEATURES = {"p2": torch.ones(2, 8, 8, 12), "p3": torch.ones(2, 8, 4, 6)}


def make(**settings):
    torch.manual_seed(0)
    return SemSegFPNHead(
        **({"input_shape": SHAPES, "num_classes": 3, "conv_dims": 8, "common_stride": 4} | settings)
    )


def test_logits_have_the_resolution_of_the_input():
    logits, losses = make()(FEATURES)
    assert logits.shape == (2, 3, 32, 48) and losses == {}


def test_ignored_pixels_do_not_change_the_loss():
    head, targets = make(), torch.zeros(2, 32, 48)
    _, losses = head(FEATURES, targets)
    targets[1] = -1  # both images are equal, and so are their losses
    torch.testing.assert_close(head(FEATURES, targets)[1], losses)
    targets[:] = -1
    loss = head(FEATURES, targets)[1]["loss_sem_seg"]
    assert loss == 0 and loss.requires_grad


@pytest.mark.parametrize("rows", [0, 1, 3, 7])
def test_strips_of_rows_give_the_same_loss_and_gradients(monkeypatch, rows):
    head, targets = make(), torch.randint(-1, 3, (2, 32, 48))
    features = {name: torch.randn(value.shape) for name, value in FEATURES.items()}

    def loss_and_gradients():
        loss = head(features, targets)[1]["loss_sem_seg"]
        return loss, *torch.autograd.grad(loss, head.parameters())

    expected = loss_and_gradients()
    monkeypatch.setattr(sem_seg_head, "STRIP_SIZE", rows * 2 * 3 * 12 * 4**2)
    torch.testing.assert_close(loss_and_gradients(), expected)
    with pytest.raises((RuntimeError, ValueError)):
        head(features, targets[:, :30])


@pytest.mark.parametrize(("norm", "recomputed"), [("GN", True), ("BN", False)])
def test_large_maps_are_recomputed_with_the_same_gradients(monkeypatch, norm, recomputed):
    head, targets = make(conv_dims=32, norm=norm), torch.randint(-1, 3, (2, 32, 48))
    features = {name: torch.randn(value.shape, requires_grad=True) for name, value in FEATURES.items()}

    def loss_gradients_and_saved_values():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda value: sizes.append(value.numel()) or value, lambda value: value
        ):
            loss = head(features, targets)[1]["loss_sem_seg"]
        return (loss, *torch.autograd.grad(loss, [*head.parameters(), *features.values()])), sum(sizes)

    expected, before = loss_gradients_and_saved_values()
    monkeypatch.setattr(sem_seg_head, "RECOMPUTE_SIZE", 2 * 8 * 12 * 32 - 1)
    values, after = loss_gradients_and_saved_values()
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    assert after < before / 2 if recomputed else after == before
    monkeypatch.setattr(sem_seg_head, "RECOMPUTE_SIZE", 2 * 8 * 12 * 32)
    assert loss_gradients_and_saved_values()[1] == before


def test_in_features_select_the_levels():
    assert make().in_features == ["p2", "p3"]
    assert make(in_features=["p3"]).in_features == ["p3"]


@pytest.mark.parametrize(
    ("settings", "message"), [({"input_shape": {}}, "one level"), ({"common_stride": 8}, "p2 has stride 4")]
)
def test_invalid_arguments_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
