"""Time of every op in ``hydet.kernels``, compared with torchvision, with its PyTorch implementation and with a C++ loop.

``python benchmarks/kernels.py`` measures on the CUDA device if there is one, otherwise on one CPU thread. It prints a
table and writes ``benchmarks/results/kernels_<device>_<date>.md``. On CUDA it times the Triton kernels, torchvision's
ops and the PyTorch implementations, and relates their bandwidth (each input read once, each output written once) to that
of a copy in the same run. On a CPU it times the PyTorch implementations and torchvision in CPU seconds of one thread, so
that other work on the machine matters little, and compares the rotated ops with ``rotated_loop.cpp`` if g++ is present.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import statistics
import time
from pathlib import Path

import torch
import torchvision
from kernel_cases import Case, Run, all_cases, size_of
from machine import device_name

RESULTS = Path(__file__).parent / "results"
BACKENDS = ("triton", "torchvision", "torch")


def time_cuda(run: Run, repeats: int) -> float:
    """Return the median seconds of ``run``, with the second-level cache emptied before each repeat."""
    flush = torch.empty(64 * 1024 * 1024, dtype=torch.int32, device="cuda")
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        flush.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def time_cpu(run: Run) -> float:
    """Return the CPU seconds of ``run`` in this process, which has one thread."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(case: Case, device: str, repeats: int) -> None:
    """Time all runs of a case; on a CPU in turns, so that a slow period of the machine affects all of them."""
    for _ in range(1 if device == "cuda" else repeats):
        for backend, run in case.runs.items():
            before = case.seconds.get(backend, math.inf)
            if isinstance(before, str):
                continue
            try:
                seconds = time_cuda(run, repeats) if device == "cuda" else time_cpu(run)
                case.seconds[backend] = min(before, seconds)
            except Exception as error:
                # Out of memory, a dtype without a kernel, or a kernel that does not compile: measure the others.
                if device == "cuda":
                    torch.cuda.empty_cache()
                case.seconds[backend] = "-"
                print(f"  {case.op}, {case.what}, {backend}: {str(error).splitlines()[0]}")
    shown = ", ".join(f"{name} {show(seconds)}" for name, seconds in case.seconds.items())
    print(f"{case.op}: {case.what} {case.dtype}: {shown}", flush=True)


def copy_bandwidth(device: str, repeats: int) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.empty((256 if device == "cuda" else 64) * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    seconds = time_cuda(copy, repeats) if device == "cuda" else min(time_cpu(copy) for _ in range(repeats))
    return 2 * size_of(source) / seconds


def show(seconds: float | str | None) -> str:
    if seconds is None or isinstance(seconds, str):
        return seconds or ""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def default_seconds(case: Case, device: str) -> float | str | None:
    """Return the time of the Triton kernel on CUDA; on a CPU that of the backend that the op chooses."""
    if device == "cuda":
        return case.seconds.get("triton")
    return case.seconds.get("default on a CPU", case.seconds.get("torch"))


def ratio(case: Case, other: str, device: str) -> str:
    ours, theirs = default_seconds(case, device), case.seconds.get(other)
    return f"{theirs / ours:.2f}x" if isinstance(ours, float) and isinstance(theirs, float) else ""


def table(cases: list[Case], device: str, bandwidth: float) -> str:
    names = list(dict.fromkeys(name for case in cases for name in case.seconds))
    ours = "triton" if device == "cuda" else "ours"
    names.sort(key=lambda name: (name != "triton", name not in BACKENDS))
    header = ["op", "case", "type", *names, f"torchvision / {ours}", f"GB/s of {ours}", "of a copy"]
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    for case in cases:
        seconds = default_seconds(case, device)
        rate = case.bytes / seconds if isinstance(seconds, float) else None
        lines.append(
            " | ".join(
                [
                    case.op,
                    case.what,
                    case.dtype,
                    *(show(case.seconds.get(name)) for name in names),
                    ratio(case, "torchvision", device),
                    f"{rate / 1e9:.3g}" if rate else "",
                    f"{100 * rate / bandwidth:.0f} %" if rate else "",
                ]
            )
        )
    return "\n".join(f"| {line} |" for line in lines)


def report(cases: list[Case], device: str, full: bool, bandwidth: float) -> str:
    import hydet

    how = (
        "Median of CUDA events, the second-level cache emptied before each run."
        if device == "cuda"
        else "CPU seconds of one thread, the minimum of several repeats in turns. **No CUDA device was available: the table says "
        "nothing about the Triton kernels**, which only ran in the interpreter and were compiled for sm_80 and sm_90."
    )
    return "\n".join(
        [
            f"# Kernels on {device_name(device)}, {datetime.date.today().isoformat()}",
            "",
            f"`python benchmarks/kernels.py --device {device}{' --full' if full and device == 'cpu' else ''}`; hydet "
            f"{getattr(hydet, '__version__', '')}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"Python {platform.python_version()}.",
            f"{how} A copy moves {bandwidth / 1e9:.3g} GB/s here. Bandwidth counts each input read once and each output "
            "written once, so ops limited by arithmetic, such as NMS, stay far below a copy.",
            "`torchvision` is its closest equivalent: `box_iou(fmt='cxcywhr')` (wrong on coinciding edges), `nms` or "
            "`batched_nms` per image, `box_iou` with `max` for matching, `sigmoid_focal_loss` on one-hot targets, "
            "`paste_masks_in_image`, torch's `conv2d`."
            + (
                ""
                if device == "cuda"
                else " `ours` is the default on a CPU if there are several backends, otherwise `torch`; the C++ loop is "
                "`rotated_loop.cpp` with -O3 -march=native."
            ),
            "",
            table(cases, device, bandwidth),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--full", action="store_true", help="the shapes of a GPU on a CPU too (slow)")
    parser.add_argument("--ops", nargs="*", help="only these ops; nothing is written then")
    parser.add_argument("--repeats", type=int, help="runs of each (default: 20 on CUDA, 5 on a CPU)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the table")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch finds no CUDA device")
    full = args.full or args.device == "cuda"
    repeats = args.repeats or (20 if args.device == "cuda" else 5)
    torch.manual_seed(0)
    if args.device == "cpu":
        torch.set_num_threads(1)
    bandwidth = copy_bandwidth(args.device, repeats)
    print(f"{device_name(args.device)}: a copy moves {bandwidth / 1e9:.3g} GB/s")
    cases: list[Case] = []
    for case in all_cases(args.device, full):
        if args.ops and case.op not in args.ops:
            continue
        measure(case, args.device, repeats)
        case.runs.clear()  # frees its tensors
        cases.append(case)
    text = report(cases, args.device, full, bandwidth)
    print("\n" + text)
    if not args.ops:
        name = device_name(args.device).split("@")[0] if args.device == "cuda" else "cpu"
        slug = "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
        path = args.output / f"kernels_{slug}_{datetime.date.today().isoformat()}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
