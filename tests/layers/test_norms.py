import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from hydet.layers import CycleBatchNormList, FrozenBatchNorm2d, LayerNorm, NaiveSyncBatchNorm, get_norm


def random_batch_norm(channels=4, **options):
    norm = nn.BatchNorm2d(channels, **options)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


@pytest.fixture
def two_processes(monkeypatch):
    """Simulate two processes by threads; an all-reduce adds the tensors of both, with their graph."""
    contributions, meeting = {}, threading.Barrier(2, timeout=30)

    def all_reduce(tensor):
        contributions[threading.get_ident()] = tensor
        meeting.wait()
        total = sum(contributions.values())
        meeting.wait()
        contributions.pop(threading.get_ident())
        return total

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.nn.functional.all_reduce", all_reduce)

    def run(function, *inputs):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, *inputs))

    return run


@pytest.mark.parametrize("size", [(2, 4, 5, 6), (1, 4, 1, 1), (0, 4, 5, 6)])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_frozen_matches_batch_norm_in_evaluation(size, needs_grad):
    norm = random_batch_norm(eps=1e-3).eval()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(copy.deepcopy(norm)).train()
    x = torch.randn(size, requires_grad=needs_grad)
    torch.testing.assert_close(frozen(x), norm(x))


def test_frozen_keeps_channels_last():
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(random_batch_norm())
    x = torch.randn(2, 4, 5, 6)
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    y = frozen(last)
    torch.testing.assert_close(y, frozen(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_frozen_keeps_bfloat16():
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(random_batch_norm())
    x = torch.randn(2, 4, 3, 3, dtype=torch.bfloat16)
    assert frozen(x).dtype == frozen(x.requires_grad_()).dtype == torch.bfloat16
    torch.testing.assert_close(frozen(x).float(), frozen(x.detach().float()), atol=0.05, rtol=0.05)


def test_frozen_saves_no_activation_for_backward():
    frozen, x = FrozenBatchNorm2d(num_features=4), torch.randn(2, 4, 5, 6, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        frozen(x)
    assert max(saved) <= 4


def test_new_frozen_layer_is_identity_without_parameters():
    frozen, x = FrozenBatchNorm2d(num_features=4), torch.randn(2, 4, 5, 6)
    assert not list(frozen.parameters())
    assert set(frozen.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    torch.testing.assert_close(frozen(x), x)


def test_frozen_loads_state_dicts_without_statistics_or_counter():
    fresh = FrozenBatchNorm2d(num_features=4)
    fresh.load_state_dict(random_batch_norm().state_dict())
    converted = FrozenBatchNorm2d.convert_frozen_batchnorm(random_batch_norm())
    given = {"weight": torch.rand(4), "bias": torch.rand(4)}
    for layer in (fresh, converted):
        layer.load_state_dict(given)
        assert layer.running_mean.eq(0).all() and layer.running_var.eq(1).all()
    assert set(given) == {"weight", "bias"}


def test_frozen_compiles_in_one_graph():
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(random_batch_norm())
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    torch.testing.assert_close(torch.compile(frozen, fullgraph=True, backend="eager")(x), frozen(x))


def test_freezing_and_thawing_are_inverses():
    tree = nn.Sequential(nn.Conv2d(3, 4, 1), random_batch_norm(), nn.Sequential(random_batch_norm())).eval()
    x = torch.randn(2, 3, 5, 5)
    expected, weights = tree(x), copy.deepcopy(tree.state_dict())
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(tree)
    assert frozen is tree and not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    torch.testing.assert_close(frozen(x), expected)
    thawed = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(frozen)
    torch.testing.assert_close(thawed(x), expected)
    assert set(thawed.state_dict()) == set(weights)


def test_freezing_keeps_shared_layers_shared():
    norm = random_batch_norm()
    tree = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.ModuleDict({"a": norm, "b": norm}))
    assert tree["a"] is tree["b"] and isinstance(tree["a"], FrozenBatchNorm2d)


def test_freezing_copies_and_accepts_layers_without_tensors():
    norm = random_batch_norm()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    norm.weight.data.zero_()
    assert frozen.weight.abs().sum() > 0
    bare = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    assert isinstance(FrozenBatchNorm2d.convert_frozen_batchnorm(bare), FrozenBatchNorm2d)


def test_freezing_rejects_custom_forward():
    class Activated(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(TypeError, match="Activated"):
        FrozenBatchNorm2d.convert_frozen_batchnorm(nn.Sequential(Activated(4)))


def test_layer_norm_normalizes_each_position_over_channels():
    x = torch.randn(2, 8, 3, 4) * 5 + 2
    y = LayerNorm(normalized_shape=8)(x)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(dim=1, unbiased=False), torch.ones(2, 3, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["", "N"])
def test_naive_sync_matches_batch_norm_in_one_process(mode):
    x = torch.randn(3, 4, 5, 5)
    ours, theirs = NaiveSyncBatchNorm(4, stats_mode=mode), nn.BatchNorm2d(4)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_naive_sync_rejects_unknown_mode():
    with pytest.raises(ValueError, match="stats_mode"):
        NaiveSyncBatchNorm(4, stats_mode="M")


@pytest.mark.parametrize(("mode", "sizes"), [("", [2, 2]), ("N", [1, 3]), ("N", [0, 4])])
def test_naive_sync_over_two_processes_matches_batch_norm_over_all(two_processes, mode, sizes):
    norms = [NaiveSyncBatchNorm(4, stats_mode=mode) for _ in range(2)]
    x = torch.randn(4, 4, 5, 5, requires_grad=True)
    y = torch.cat(two_processes(lambda norm, part: norm(part), norms, x.split(sizes)))
    (grad,) = torch.autograd.grad((y**3).sum(), x)

    together = nn.BatchNorm2d(4)
    expected = together(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grad, torch.autograd.grad((expected**3).sum(), x)[0], atol=1e-4, rtol=1e-4)
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, together.running_mean)


def test_naive_sync_of_empty_batches_keeps_statistics(two_processes):
    norms = [NaiveSyncBatchNorm(4, stats_mode="N") for _ in range(2)]
    two_processes(lambda norm: norm(torch.zeros(0, 4, 5, 5)), norms)
    assert norms[0].running_var.eq(1).all() and norms[0].running_mean.eq(0).all()


def test_naive_sync_rejects_empty_batch_without_weights(two_processes):
    with pytest.raises(ValueError, match="stats_mode='N'"):
        NaiveSyncBatchNorm(4)(torch.zeros(0, 4, 5, 5))


def test_cycle_separates_statistics_and_shares_affine_parameters():
    norms = CycleBatchNormList(length=2, num_features=4)
    for shift in (0.0, 100.0, 0.0, 100.0):
        norms(torch.randn(2, 4, 8, 8) + shift)
    assert norms[0].running_mean.abs().max() < 1 < 10 < norms[1].running_mean.min()
    assert {name for name, _ in norms.named_parameters()} == {"weight", "bias"}
    nn.init.zeros_(norms.weight)
    nn.init.constant_(norms.bias, 3)
    assert norms(torch.randn(1, 4, 2, 2)).eq(3).all()


def test_get_norm_by_name_function_and_none():
    assert get_norm("", 4) is None and get_norm(None, 4) is None
    assert get_norm("GN", 64).num_groups == 32
    assert get_norm("LN", 8).eps == 1e-6
    assert get_norm(lambda channels: nn.GroupNorm(2, channels), 6).num_channels == 6
    for name in ("BN", "SyncBN", "nnSyncBN", "FrozenBN", "naiveSyncBN", "naiveSyncBN_N"):
        assert get_norm(name, 8).num_features == 8
    with pytest.raises(ValueError, match=r"FrozenBN.*'bn'"):
        get_norm("bn", 4)
