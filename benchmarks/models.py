"""Measure the fast and exact forms of hydet's models and those of torchvision: interleaved runs, memory, stages, limits.

    python benchmarks/models.py --threads 2
    python benchmarks/models.py --models retinanet fcos --size 512 640 --runs 10 --work inference
    python benchmarks/models.py --device cuda --batch 8

A CPU table holds hydet fast and exact and torchvision, all in float32, and hydet in bfloat16 if the processor has
instructions for it. A GPU table holds each of them in float32, TF32 and bfloat16, and hydet also compiled and as a CUDA
graph. All have a ResNet-50-FPN with random weights that detect 100 objects; see ``src/hydet/runs/benchmark_inputs.py``.
Training steps, without the optimizer, take 2 images. Prints the tables and writes them to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision
from machine import device_name
from omegaconf import DictConfig

import hydet
from hydet.modeling.optimization.reduced_precision import has_fast_bfloat16
from hydet.runs.benchmark_memory import peak_bytes, peak_bytes_apart
from hydet.runs.benchmark_run import Measurement, count_flops, measure
from hydet.runs.benchmark_works import Variant, build_subject, build_work
from hydet.runs.machine_limits import MachineLimits, measure_limits

RESULTS = Path(__file__).parent / "results"
MODELS = {
    "mask_rcnn_fpn": "Mask R-CNN",
    "retinanet": "RetinaNet",
    "fcos": "FCOS",
    "panoptic_fpn": "Panoptic FPN",
    "cascade_mask_rcnn_fpn": "Cascade Mask R-CNN",
}
TRAINED = ("mask_rcnn_fpn", "retinanet")
IN_TORCHVISION = ("mask_rcnn_fpn", "retinanet", "fcos")
TRAINING_BATCH = 2


@dataclass
class Section:
    """The results of one model and one kind of work."""

    model: str
    work: str
    batch: int
    flops: int | None  # of one inference; unknown for a training step
    results: list[tuple[Variant, Measurement]] = field(default_factory=list)


def variants(model: str, work: str, device: torch.device, bf16: bool) -> list[Variant]:
    """Return the forms of a model that a table compares."""
    cuda, training = device.type == "cuda", work == "training"
    forms = [Variant("exact"), Variant("fast")]
    if cuda:
        forms += [Variant("fast", tf32=True)]
    if bf16:
        forms += [Variant("bf16")]
    if cuda and not training:
        optimized = [form for form in forms if form.mode != "exact"]
        forms += [dataclasses.replace(form, compile=True) for form in optimized]
        forms += [dataclasses.replace(form, compile=True, cuda_graph=True) for form in optimized]
    if model not in IN_TORCHVISION:
        return forms
    theirs = [Variant(torchvision=True)]
    if cuda:
        theirs += [Variant(torchvision=True, tf32=True)]
        theirs += [Variant("bf16", torchvision=True)] if bf16 else []
    return theirs + forms


def compose(args: argparse.Namespace, model: str, work: str, batch: int) -> DictConfig:
    """Return the config of a benchmark command that measures the same."""
    return hydet.compose(
        f"model={model}",
        f"backbone={args.backbone}",
        f"size={args.model_size}",
        "data=shapes_panoptic" if "panoptic" in model else "data=shapes",
        f"work={work}",
        f"batch_size={batch}",
        f"image_size=[{args.size[0]},{args.size[1]}]",
        f"device={args.device}",
        config_name="benchmark",
    )


def measure_section(args: argparse.Namespace, model: str, work: str) -> Section:
    """Measure the forms of a model in turns, and their memory one by one."""
    batch = args.batch if work == "inference" else max(TRAINING_BATCH, args.batch)
    config = compose(args, model, work, batch)
    subject = build_subject(config)
    forms = variants(model, work, subject.device, has_fast_bfloat16(subject.device))
    works = [build_work(config, subject, form) for form in forms]
    section = Section(model, work, batch, None)
    if work == "inference":
        section.flops = count_flops(subject.model, subject.batch)
    for form, made, result in zip(
        forms, works, measure(works, runs=args.runs, warmup=args.warmup), strict=True
    ):
        peak = None
        if not args.no_memory:
            peak = peak_bytes(made) if subject.device.type == "cuda" else peak_bytes_apart(config, form)
        section.results.append((form, dataclasses.replace(result, peak_bytes=peak)))
    return section


def row(
    section: Section, form: Variant, result: Measurement, limits: Mapping[str, MachineLimits]
) -> list[str]:
    """Return the cells of one form of a model."""

    def ratio(others: Iterator[Measurement]) -> str:
        other = next(others, None)
        return "-" if other is None else f"{other.median / result.median:.2f}"

    theirs = [(f, r) for f, r in section.results if f.torchvision]
    # A form is compared with torchvision in its own precision, or in float32 if that was not measured.
    same = [r for f, r in theirs if f.precision == form.precision] or [r for _, r in theirs]
    exact = (r for f, r in section.results if f == Variant("exact"))
    limit = None if form.torchvision or section.flops is None else limits.get(form.precision)
    return [
        MODELS[section.model],
        form.name,
        f"{result.median:.3g}",
        f"{result.percentile(10):.3g} to {result.percentile(90):.3g}",
        f"{section.batch / result.median:.3g}",
        "-" if form.torchvision else ratio(iter(same)),
        ratio(exact),
        "-" if result.peak_bytes is None else f"{result.peak_bytes / 2**20:.0f}",
        "-" if limit is None else f"{limit.share(section.flops, result.median):.0%}",
    ]


HEADER = [
    "model",
    "form",
    "median, s",
    "10% to 90%, s",
    "images per s",
    "torchvision / this",
    "exact / this",
    "peak memory, MiB",
    "products at full rate",
]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(cells) + " |" for cells in rows), ""]


def stage_table(sections: Sequence[Section]) -> list[str]:
    """Return the table of seconds by stage; empty without stages."""
    timed = [(s, f, r) for s in sections for f, r in s.results if r.stages and s.work == "inference"]
    names = list(dict.fromkeys(name for _, _, result in timed for name in result.stages))
    names.sort(key=lambda name: name == "postprocessing")  # the last stage of all models
    rows = [
        [MODELS[s.model], f.name, *(f"{r.stages[n]:.3g}" if n in r.stages else "-" for n in names)]
        for s, f, r in timed
    ]
    return ["## Stages of inference, median seconds", "", *markdown(["model", "form", *names], rows)] * bool(
        rows
    )


def report(args: argparse.Namespace, sections: Sequence[Section], limits: Mapping[str, MachineLimits]) -> str:
    """Return the whole report in Markdown; ``limits`` are those of each measured precision."""
    device = torch.device(args.device)
    kind = device_name(device.type)
    threads = f", {os.cpu_count()} cores, {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    rates = ", ".join(f"{precision} {limit.flops / 1e9:.0f}" for precision, limit in limits.items())
    lines = [
        f"# Models of hydet and torchvision, {datetime.date.today().isoformat()}",
        "",
        f"- {args.backbone}-FPN, {args.size[0]} x {args.size[1]}, {args.runs} runs in turns, wall clock",
        f"- {kind}{threads}",
        f"- hydet {hydet.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Python {platform.python_version()}",
        f"- matrix product: {rates} GFLOP/s; copy: {limits['fp32'].bytes / 1e9:.1f} GB/s (reads and writes)",
        f"- command: `{shlex.join(['python', 'benchmarks/models.py', *sys.argv[1:]])}`",
    ]
    if not has_fast_bfloat16(device):
        lines.append("- no bf16 rows: the processor has no bf16 instructions")
    lines.append("")
    for work, title in (("inference", "Inference"), ("training", "Training step, without the optimizer")):
        chosen = [section for section in sections if section.work == work]
        if chosen:
            rows = [row(section, f, r, limits) for section in chosen for f, r in section.results]
            lines += [f"## {title}, {chosen[0].batch} images per batch", "", *markdown(HEADER, rows)]
    lines += stage_table(sections)
    flops = ", ".join(
        f"{MODELS[s.model]} {s.flops / 1e9:.0f} GFLOP = {s.flops / limits['fp32'].flops:.3g} s in float32"
        for s in sections
        if s.flops
    )
    lines += [
        "Ratios above 1 mean that the form of the row is faster; torchvision's model has the precision of the row, or "
        "float32 where that was not measured. Peak memory is what one run needs on top of the model. Products at full "
        "rate: the part of the time that the model's convolutions and matrix products take at the rate of the matrix "
        f"product of its precision above (one inference: {flops})." if flops else "No inference was measured.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1, help="images per batch; training takes at least 2")
    parser.add_argument("--runs", type=int, default=5, help="timed runs per form")
    parser.add_argument("--warmup", type=int, default=1, help="runs before them")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; its default if omitted")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--work", nargs="+", choices=["inference", "training"], default=["inference", "training"]
    )
    parser.add_argument("--backbone", default="r50", help="torchvision's models have a ResNet-50 always")
    parser.add_argument("--model-size", default="standard", help="option of conf/size")
    parser.add_argument("--no-memory", action="store_true", help="skip the memory measurements")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args()
    if min(args.size) < 64 or min(args.batch, args.runs) < 1:
        parser.error("sizes must be at least 64, batch and runs at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    return args


def main() -> int:
    args = parse()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message=".*bfloat16 instructions")  # the report says it
    device = torch.device(args.device)
    limits = {"fp32": measure_limits(device)}
    if has_fast_bfloat16(device):
        limits["bf16"] = measure_limits(device, dtype=torch.bfloat16)
    sections = []
    for work in args.work:
        for model in args.models:
            if work == "training" and model not in TRAINED:
                continue
            print(f"{MODELS[model]}, {work} ...", file=sys.stderr, flush=True)
            sections.append(measure_section(args, model, work))
    text = report(args, sections, limits)
    print(text)
    args.results.mkdir(parents=True, exist_ok=True)
    batch = f"_batch{args.batch}" if args.batch > 1 else ""
    work = f"_{args.work[0]}" if len(args.work) == 1 else ""
    path = args.results / f"models_{args.device}{work}{batch}_{datetime.date.today().isoformat()}.md"
    path.write_text(text, encoding="utf-8")
    print(f"Written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
