"""``python -m src.benchmark model=…``: time, memory and size of a model, by itself or beside another one."""

from __future__ import annotations

import copy
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from hydet._version import __version__
from hydet.config import ConfigError
from hydet.engine import select_device
from hydet.modeling import MetaArchitecture, optimize, optimize_training
from hydet.runs.benchmark_inputs import calibrate, random_batch
from hydet.runs.benchmark_run import Contestant, GraphCounts, Measurement, count_flops, count_graphs, measure
from hydet.runs.build import build_model
from hydet.runs.config_values import BENCHMARK_VALUES, check_values
from hydet.runs.torchvision_models import build_torchvision, calibrate_torchvision, to_torchvision
from hydet.structures import ModelInput

from .command import run_command

__all__ = ["benchmark", "main"]

FILE = "benchmark.json"


@dataclass
class _Work:
    """A model, and the call that is measured."""

    name: str
    model: nn.Module
    arguments: tuple[Any, ...]
    training: bool
    bf16: bool
    device: torch.device

    def run(self) -> object:
        if not self.training:
            with torch.inference_mode():
                return self.model(*self.arguments)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = cast(dict[str, Tensor], self.model(*self.arguments))
            total = torch.stack(list(losses.values())).sum()
        total.backward()
        for parameter in self.model.parameters():
            parameter.grad = None
        return total


def benchmark(config: DictConfig, output_dir: Path) -> float | None:
    """Measure one model.

    Args:
        config: see ``conf/benchmark.yaml``.
        output_dir: folder of ``benchmark.json``.

    Returns:
        None; a benchmark has no metric that a sweep could maximize.
    """
    check_values(config, BENCHMARK_VALUES)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = select_device(config.device)
    torch.manual_seed(0)
    exact = build_model(config)
    if not isinstance(exact, MetaArchitecture):
        raise ConfigError(f"{type(exact).__name__} is not a model of hydet")
    exact.to(device)
    if exact.needs_proposals:
        raise ConfigError("a model without proposal generator cannot be measured: choose another model=")
    batch = random_batch(
        exact,
        config.batch_size,
        (int(config.image_size[0]), int(config.image_size[1])),
        num_classes=config.num_classes,
        num_keypoints=config.num_keypoints,
        num_labels=config.num_stuff_classes,
    )
    calibrate(exact, batch)
    contestants = _contestants(config, exact, batch, device)
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for p in exact.parameters()),
        "flops": count_flops(exact, batch),
    }
    graphs = count_graphs(exact, batch) if config.graph else None
    results = measure(contestants, runs=config.runs, warmup=config.warmup)
    console = Console()
    for line in _describe(config, facts, graphs, device):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(_table(results, config.batch_size))
    path = output_dir / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(config, facts, graphs, results, device), indent=2), encoding="utf-8")
    console.print(escape(f"results: {path}"), highlight=False, soft_wrap=True)
    return None


def _contestants(
    config: DictConfig, exact: MetaArchitecture, batch: list[ModelInput], device: torch.device
) -> list[Contestant]:
    mode, training = config.inference, config.work == "training"
    candidate = copy.deepcopy(exact)
    if training:
        candidate = candidate if mode == "exact" else optimize_training(candidate)
    else:
        candidate = optimize(candidate, mode, compile=config.compile)
    settings: dict[str, Any] = {"training": training, "device": device}
    name = f"hydet, {mode}{', compiled' if config.compile else ''}"
    works = [_Work(name, candidate.train(training), (batch,), bf16=mode == "bf16", **settings)]
    if config.against == "exact":
        works.append(_Work("hydet, exact", exact.train(training), (batch,), bf16=False, **settings))
    if config.against == "torchvision":
        theirs = build_torchvision(
            exact, num_classes=config.num_classes, num_keypoints=config.num_keypoints
        ).to(device)
        images, targets = to_torchvision(batch, device)
        calibrate_torchvision(theirs, images)
        arguments = (images, targets) if training else (images,)
        works.append(_Work("torchvision", theirs.train(training), arguments, bf16=False, **settings))
    return list(works)


def _describe(
    config: DictConfig, facts: dict[str, Any], graphs: GraphCounts | None, device: torch.device
) -> list[str]:
    height, width = config.image_size
    work = "training step" if config.work == "training" else "inference"
    lines = [
        f"{work}, batch {config.batch_size}, {height} x {width}, {device}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}",
        f"parameters: {facts['parameters'] / 1e6:.1f} million",
        f"inference: {facts['flops'] / 1e9:.0f} GFLOP (convolutions and matrix products)",
    ]
    if graphs is not None:
        lines.append(
            f"torch.compile: {graphs.graph_breaks} graph breaks, {graphs.compilations} compilations for two image sizes "
            "with one padded size"
        )
        if graphs.reason is not None:
            lines.append(f"first break: {graphs.reason}")
    return lines


def _table(results: Sequence[Measurement], batch_size: int) -> Table:
    table = Table("", *(result.name for result in results))
    first = results[0]

    def row(name: str, cells: Sequence[str]) -> None:
        table.add_row(name, *cells)

    row("median, s", [f"{r.median:.3g}" for r in results])
    for percent in (10, 90, 99):
        row(f"{percent}th percentile, s", [f"{r.percentile(percent):.3g}" for r in results])
    row("images per s", [f"{batch_size / r.median:.3g}" for r in results])
    row("time / first", [f"{r.median / first.median:.2f}" for r in results])
    row("peak memory, MiB", ["-" if r.peak_bytes is None else f"{r.peak_bytes / 2**20:.0f}" for r in results])
    for stage in dict.fromkeys(stage for r in results for stage in r.stages):
        row(f"{stage}, s", [f"{r.stages[stage]:.3g}" if stage in r.stages else "-" for r in results])
    return table


def _as_json(
    config: DictConfig,
    facts: dict[str, Any],
    graphs: GraphCounts | None,
    results: Sequence[Measurement],
    device: torch.device,
) -> dict[str, Any]:
    return {
        "work": config.work,
        "image_size": list(config.image_size),
        "batch_size": config.batch_size,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "versions": {"hydet": __version__, "torch": torch.__version__, "python": platform.python_version()},
        **facts,
        "graph": None
        if graphs is None
        else {
            "breaks": graphs.graph_breaks,
            "compilations": graphs.compilations,
            "first_break": graphs.reason,
        },
        "models": [
            {
                "name": r.name,
                "seconds": r.seconds,
                "median": r.median,
                "images_per_second": config.batch_size / r.median,
                "stages": r.stages,
                "peak_bytes": r.peak_bytes,
            }
            for r in results
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(benchmark, config_name="benchmark", arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
