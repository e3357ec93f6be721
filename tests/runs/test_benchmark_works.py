import pickle
import time
from concurrent.futures import Future

import pytest
import torch

import hydet
from hydet.config import ConfigError
from hydet.runs import benchmark_memory
from hydet.runs.benchmark_memory import peak_bytes, peak_bytes_apart
from hydet.runs.benchmark_works import Variant, build_subject, build_work
from hydet.runs.machine_limits import MachineLimits, measure_limits


def compose(*overrides):
    return hydet.compose(
        *overrides,
        "backbone=r18_slim",
        "size=slim",
        "image_size=[64,96]",
        "device=cpu",
        config_name="benchmark",
    )


def test_names_of_variants_differ():
    names = [
        Variant("fast", tf32=True, compile=True, cuda_graph=True).name,
        Variant("fast", compile=True).name,
        Variant("bf16", torchvision=True).name,
    ]
    assert names == ["hydet, fast, tf32, CUDA graph", "hydet, fast, compiled", "torchvision, bf16"]


@pytest.mark.parametrize("work", ["inference", "training"])
def test_variants_leave_the_subject_as_it_is(work):
    config = compose("model=retinanet", f"work={work}", "num_classes=3")
    subject = build_subject(config)
    weights = {name: value.clone() for name, value in subject.model.state_dict().items()}
    for variant in (Variant(), Variant("fast")):
        made = build_work(config, subject, variant)
        made.run()
        assert made.model is not subject.model
    assert all(torch.equal(value, weights[name]) for name, value in subject.model.state_dict().items())


def test_a_model_that_needs_proposals_is_named():
    with pytest.raises(ConfigError, match="without proposal generator"):
        build_subject(compose("model=fast_rcnn_fpn"))


class Allocates:
    """A contestant that fills a tensor of 64 MiB, and keeps it for several readings of a busy machine."""

    name, device = "allocates", torch.device("cpu")

    def run(self):
        tensor = torch.ones(2**24)
        time.sleep(0.2)
        return tensor.sum()


def test_the_peak_of_a_run_contains_its_tensors():
    peak = peak_bytes(Allocates())
    assert peak is None or 2**25 < peak < 2**28


def test_the_peak_of_a_process_of_its_own(monkeypatch):
    class Pool:
        """Runs the work in this process; a new one needs many seconds for its imports."""

        def __init__(self, **kwargs):
            assert kwargs["mp_context"].get_start_method() == "spawn"

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def submit(self, function, *args):
            pickle.dumps((function, args))
            future = Future()
            future.set_result(function(*args))
            return future

    monkeypatch.setattr(benchmark_memory, "ProcessPoolExecutor", Pool)
    peak = peak_bytes_apart(compose("model=retinanet", "num_classes=3"), Variant("fast"))
    assert peak is None or 0 <= peak < 2**28


def test_limits_of_the_machine():
    limits = measure_limits(torch.device("cpu"), side=64, copied=2**16, runs=2)
    assert limits.flops > 0 and limits.bytes > 0


def test_the_share_of_products():
    assert MachineLimits(flops=100.0, bytes=1.0).share(50.0, 2.0) == 0.25
