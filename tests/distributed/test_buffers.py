import torch
from torch import nn

from hydet.distributed import rank, synchronize_buffers


class Model(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.half_norm = nn.BatchNorm1d(1).to(torch.bfloat16)
        self.untracked = nn.BatchNorm1d(2, track_running_stats=False)
        self.norm.running_mean += value
        self.norm.running_var *= 1 + 2 * value
        self.norm.num_batches_tracked += int(value)
        self.half_norm.running_mean += value
        self.register_buffer("kept_by_main", torch.tensor([value, 5 * value]), persistent=False)
        self.register_buffer("empty", torch.zeros(0))


def contents(model):
    return {name: value.tolist() for name, value in model.named_buffers()}


def synchronized():
    model = Model(float(rank() + 1))
    addresses = [b.data_ptr() for b in model.buffers()]
    synchronize_buffers(model)
    assert [b.data_ptr() for b in model.buffers()] == addresses
    return contents(model)


def test_statistics_are_averaged_and_other_buffers_come_from_the_main_process(on_two_processes):
    first, second = on_two_processes(synchronized)
    assert first == second
    assert first["norm.running_mean"] == [1.5, 1.5] and first["half_norm.running_mean"] == [1.5]
    assert first["norm.running_var"] == [4.0, 4.0]
    assert first["norm.num_batches_tracked"] == 1
    assert first["kept_by_main"] == [1.0, 5.0]


def test_a_single_process_keeps_its_buffers():
    model = Model(1.0)
    before = contents(model)
    synchronize_buffers(model)
    assert contents(model) == before
