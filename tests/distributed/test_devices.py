import pytest
import torch

from hydet.distributed import cuda_rng_devices, resolve_precision, select_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_auto_prefers_cuda(gpus, monkeypatch):
    assert select_device("auto") == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == CPU


def test_each_process_of_a_machine_has_its_gpu(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device("cuda") == torch.device("cuda", 1)
    assert select_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="selects GPU 2, but there are 2 GPUs"):
        select_device("cuda")


def test_unknown_and_missing_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'tpu9'"):
        select_device("tpu9")
    with pytest.raises(ValueError, match="no CUDA device"):
        select_device("cuda")


@pytest.mark.parametrize(
    ("precision", "device", "bf16", "dtype"),
    [
        ("auto", CPU, True, torch.float32),
        ("auto", CUDA, True, torch.bfloat16),
        ("auto", CUDA, False, torch.float16),
        ("bf16", CPU, False, torch.bfloat16),
        ("fp16", CUDA, True, torch.float16),
        ("fp32", CUDA, True, torch.float32),
    ],
)
def test_precisions(monkeypatch, precision, device, bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert resolve_precision(precision, device) == dtype


@pytest.mark.parametrize(("precision", "message"), [("half", "'half'"), ("fp16", "needs CUDA")])
def test_invalid_precisions_are_named(precision, message):
    with pytest.raises(ValueError, match=message):
        resolve_precision(precision, CPU)


def test_an_unused_gpu_has_no_random_state(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert cuda_rng_devices() == []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert cuda_rng_devices() == [1]
