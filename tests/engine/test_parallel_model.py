import torch
from torch import nn

from hydet.distributed import rank
from hydet.engine.parallel_model import parallel_model, without_gradient_synchronization


def test_a_single_process_trains_the_model_itself():
    model = nn.Linear(2, 1)
    assert parallel_model(model, device=torch.device("cpu")) is model
    with without_gradient_synchronization(model):
        pass


class Normalized(nn.Module):
    """Weights, and a constant, that differ between processes at first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(rank())
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.register_buffer("constant", torch.tensor(float(rank() + 3)))

    def forward(self, x):
        return self.norm(self.layer(x)).square().sum() * self.constant


def gradients_and_buffers():
    model = Normalized()
    parallel = parallel_model(model, device=torch.device("cpu"))
    x = torch.randn(4, 2)  # differs, too
    with without_gradient_synchronization(parallel):
        parallel(x).backward()
    separate = model.norm.bias.grad.tolist()
    model.zero_grad()
    parallel(x).backward()
    return separate, model.norm.bias.grad.tolist(), float(model.constant), model.norm.running_mean.tolist()


def test_gradients_are_averaged_and_forward_passes_leave_buffers_alone(on_two_processes):
    first, second = on_two_processes(gradients_and_buffers)
    assert first[0] != second[0] and first[1] == second[1]
    assert first[2] == second[2] == 3.0
    assert first[3] != second[3]  # until the step ends
