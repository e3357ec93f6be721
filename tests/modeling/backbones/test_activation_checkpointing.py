import copy

import pytest
import torch
from torch import nn

from hydet.modeling import TorchvisionBackbone, checkpoint_activations
from hydet.modeling.backbones.activation_checkpointing import StatisticsGuard, run_checkpointed

BUILDERS = {
    "resnet": lambda small: small.resnet(norm="BN"),
    "regnet": lambda small: small.regnet(norm="BN"),
    "vit": lambda small: small.vit(drop_path_rate=0.5),
    "swin": lambda small: small.swin(drop_path_rate=0.5, drop_rate=0.1),
    "mvit": lambda small: small.mvit(drop_path_rate=0.5),
    "timm resnet": lambda small: small.timm("resnet10t"),
    "timm mobilenet": lambda small: small.timm("mobilenetv3_small_050"),
    "timm convnext": lambda small: small.timm("convnext_atto", model_options={"drop_path_rate": 0.5}),
    "torchvision resnet": lambda small: TorchvisionBackbone(model_name="resnet18"),
    "torchvision mobilenet": lambda small: TorchvisionBackbone(model_name="mobilenet_v3_small"),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_checkpointing_changes_no_number(name, make_small):
    """Outputs, gradients, statistics of batch norms and randomly dropped branches are equal."""
    torch.manual_seed(0)
    plain = BUILDERS[name](make_small).train()
    checkpointed = copy.deepcopy(checkpoint_activations(copy.deepcopy(plain)))
    images, results = torch.randn(2, 3, 64, 64), []
    for net in (plain, checkpointed):
        torch.manual_seed(1)
        sum(feature.square().mean() for feature in net(images).values()).backward()
        gradients = {f"{n} (gradient)": p.grad for n, p in net.named_parameters() if p.grad is not None}
        results.append(net.state_dict() | gradients)
    assert results[0].keys() == results[1].keys() and len(results[0]) > len(plain.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=0, atol=0)


def test_checkpointing_stores_fewer_bytes(make_small):
    def stored_bytes(net):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            net(torch.randn(1, 3, 64, 64))
        return total

    net = make_small.vit(depth=4, window_block_indexes=[])
    before = stored_bytes(net)
    assert stored_bytes(checkpoint_activations(net)) < before / 3
    assert stored_bytes(checkpoint_activations(net, enabled=False)) == before


def test_run_checkpointed_counts_a_batch_once_and_restores_momentum():
    block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, momentum=0.25), nn.ReLU())
    run_checkpointed(block, torch.randn(2, 2, 4, 4, requires_grad=True)).sum().backward()
    assert block[1].num_batches_tracked == 1 and block[1].momentum == 0.25


def test_statistics_guard_updates_statistics_in_run_only():
    norm = nn.BatchNorm1d(2)
    guard = StatisticsGuard(norm)
    guard.run(norm, torch.randn(4, 2))
    statistics = norm.running_mean.clone()
    norm(torch.randn(4, 2))  # as in a recomputation
    assert torch.equal(norm.running_mean, statistics) and norm.num_batches_tracked == 1
    guard.close()
    norm(torch.randn(4, 2))
    assert norm.num_batches_tracked == 2
