"""``python -m src.benchmark model=…``: time, memory and size of a model, by itself or beside another one."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hydet._version import __version__
from hydet.runs.benchmark_memory import peak_bytes, peak_bytes_apart
from hydet.runs.benchmark_run import GraphCounts, Measurement, count_flops, count_graphs, measure
from hydet.runs.benchmark_works import Variant, Work, build_subject, build_work
from hydet.runs.config_values import BENCHMARK_VALUES, check_values

from .command import run_command

__all__ = ["benchmark", "main"]

FILE = "benchmark.json"


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
    subject = build_subject(config)
    variants = _variants(config)
    works = [build_work(config, subject, variant) for variant in variants]
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "flops": count_flops(subject.model, subject.batch),
    }
    graphs = count_graphs(subject.model, subject.batch) if config.graph else None
    results = [
        dataclasses.replace(result, peak_bytes=_peak(config, variant, work))
        for result, variant, work in zip(
            measure(works, runs=config.runs, warmup=config.warmup), variants, works, strict=True
        )
    ]
    device = subject.device
    console = Console()
    for line in _describe(config, facts, graphs, device):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(_table(results, config.batch_size))
    path = output_dir / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(config, facts, graphs, results, device), indent=2), encoding="utf-8")
    console.print(escape(f"results: {path}"), highlight=False, soft_wrap=True)
    return None


def _variants(config: DictConfig) -> list[Variant]:
    variants = [Variant(config.inference, compile=config.compile)]
    if config.against == "exact":
        variants.append(Variant())
    if config.against == "torchvision":
        variants.append(Variant(torchvision=True))
    return variants


def _peak(config: DictConfig, variant: Variant, work: Work) -> int | None:
    if config.peak_memory is None:
        return None
    # The peak of a GPU is exact in any process.
    apart = config.peak_memory == "apart" and work.device.type == "cpu"
    return peak_bytes_apart(config, variant) if apart else peak_bytes(work)


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
