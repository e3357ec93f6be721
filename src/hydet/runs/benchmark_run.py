"""Time, memory, size and graphs of a model on random images."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hydet.modeling import DenseDetector, GeneralizedRCNN, MetaArchitecture, ProposalNetwork
from hydet.structures import ModelInput

__all__ = ["Contestant", "GraphCounts", "Measurement", "count_flops", "count_graphs", "measure"]


class Contestant(Protocol):
    """A model with one piece of work that is measured."""

    name: str
    device: torch.device

    def run(self) -> object:
        """Do the work once."""
        ...


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Results of the runs of one model.

    Attributes:
        name: name of the model.
        seconds: duration of each run.
        stages: median seconds of each stage, in order of execution; empty if the model is not hydet's.
        peak_bytes: largest memory that a run needed on top of that before it; None if it was not
            measured.
    """

    name: str
    seconds: list[float]
    stages: dict[str, float]
    peak_bytes: int | None = None

    def percentile(self, percent: float) -> float:
        """Return the duration in seconds that ``percent`` of the runs do not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def median(self) -> float:
        """Median duration in seconds."""
        return statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class GraphCounts:
    """Result of ``torch.compile`` on the tensor core of a model.

    Attributes:
        graph_breaks: number of breaks; 0 is one graph.
        compilations: number of compilations for images of two sizes with the same padded size; 1 is none again.
        reason: of the first break; None without breaks.
    """

    graph_breaks: int
    compilations: int
    reason: str | None


def measure(contestants: Sequence[Contestant], *, runs: int, warmup: int) -> list[Measurement]:
    """Measure models in turns, so that a change of the machine's speed reaches all of them.

    Args:
        contestants: the models.
        runs: number of timed runs.
        warmup: number of runs before them.
    """
    stages: list[dict[str, list[float]]] = [{} for _ in contestants]
    seconds: list[list[float]] = [[] for _ in contestants]
    for i in range(warmup + runs):
        for contestant, times, parts in zip(contestants, seconds, stages, strict=True):
            with _timing_stages(contestant) as timed:
                duration = _seconds(contestant)
            if i < warmup:
                continue
            times.append(duration)
            for name, value in timed(duration).items():
                parts.setdefault(name, []).append(value)
    return [
        Measurement(c.name, times, {k: statistics.median(v) for k, v in parts.items()})
        for c, times, parts in zip(contestants, seconds, stages, strict=True)
    ]


def _seconds(contestant: Contestant) -> float:
    _synchronize(contestant.device)
    start = time.perf_counter()
    contestant.run()
    _synchronize(contestant.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# Stages by module: what runs before the first of them is data, what runs after the last one is postprocessing.


def _stage_modules(model: object) -> list[tuple[str, nn.Module]]:
    if (
        not isinstance(model, MetaArchitecture)
        or model.is_compiled
        or not isinstance(model.backbone, nn.Module)
    ):
        return []
    stages: list[tuple[str, object]] = [("backbone", model.backbone)]
    if isinstance(model, GeneralizedRCNN | ProposalNetwork):
        stages.append(("proposals", model.proposal_generator))
    if isinstance(model, GeneralizedRCNN):
        stages.append(("heads", model.roi_heads))
    if isinstance(model, DenseDetector):
        stages.append(("heads", model.head))
    stages.append(("semantic head", getattr(model, "sem_seg_head", None)))
    return [(name, module) for name, module in stages if isinstance(module, nn.Module)]


@contextlib.contextmanager
def _timing_stages(contestant: Contestant) -> Iterator[Callable[[float], dict[str, float]]]:
    """Time the stages of one run of inference; yields a function of its duration that returns seconds by stage."""
    modules = _stage_modules(getattr(contestant, "model", None))
    spans: list[tuple[str, float, float]] = []
    starts: dict[str, float] = {}
    handles = []
    begin = time.perf_counter()
    for name, module in modules:

        def before(module: nn.Module, args: Any, name: str = name) -> None:
            _synchronize(contestant.device)
            starts[name] = time.perf_counter()

        def after(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            _synchronize(contestant.device)
            spans.append((name, starts[name], time.perf_counter()))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def result(duration: float) -> dict[str, float]:
        if not spans:
            return {}
        stages = {"data": min(start for _, start, _ in spans) - begin}
        for name, start, end in spans:
            stages[name] = stages.get(name, 0.0) + end - start
        stages["postprocessing"] = max(0.0, duration - sum(stages.values()))
        return stages

    try:
        yield result
    finally:
        for handle in handles:
            handle.remove()


def count_flops(model: MetaArchitecture, batch: Sequence[ModelInput]) -> int:
    """Return the floating-point operations of one inference; a multiplication and an addition count as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.inference(batch)
    return int(counter.get_total_flops())


def count_graphs(model: MetaArchitecture, batch: Sequence[ModelInput]) -> GraphCounts:
    """Compile the tensor core without generating code, and count graph breaks and compilations."""
    images = model.preprocess_image(batch)
    sizes = torch.tensor(images.image_sizes, device=images.device)
    smaller = sizes - 1
    torch._dynamo.reset()
    graphs = 0

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return module.forward

    with torch.no_grad():
        explanation = torch._dynamo.explain(model.inference_padded)(images.tensor, sizes)
        torch._dynamo.reset()
        compiled = torch.compile(model.inference_padded, backend=backend, dynamic=False)
        compiled(images.tensor, sizes)
        per_compilation = max(1, graphs)
        compiled(images.tensor, smaller)
    torch._dynamo.reset()
    reasons = [" ".join(str(reason.reason).split()) for reason in explanation.break_reasons]
    return GraphCounts(
        explanation.graph_break_count, graphs // per_compilation, reasons[0][:300] if reasons else None
    )
