"""``python -m src.weights list|download|show|convert``: published recipes, and weights from elsewhere."""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from rich.table import Table
from rich.text import Text

from hydet.config import ConfigError
from hydet.engine.terminal import OutputConsole
from hydet.interop import Recipe, find_weights, recipes
from hydet.runs.convert_weights import convert_weights
from hydet.runs.weights_summary import ModuleSummary, WeightsSummary, summarize_modules, summarize_weights

from .command import printable, run_plain_command
from .printing import print_lines

__all__ = ["build_parser", "main"]

# Published number -> head of its column.
_COLUMNS: Mapping[str, str] = {
    "box_AP": "box AP",
    "mask_AP": "mask AP",
    "keypoint_AP": "keypoint AP",
    "PQ": "PQ",
    "proposal_AR": "proposal AR",
}
_MAX_NAMES = 5  # class names in a line
_EXAMPLES = """examples:
  python -m src.weights list retinanet
  python -m src.weights download COCO-Detection/retinanet_R_50_FPN_3x
  python -m src.weights show detectron2://ImageNetPretrained/MSRA/R-50.pkl
  python -m src.weights convert COCO-Detection/retinanet_R_50_FPN_3x runs/retinanet
  python -m src.weights convert weights.pth runs/mine model=retinanet backbone=r50 data.class_names=[cat,dog]

SOURCE is a file, an address (https://, detectron2://, catalog://) or the name of a published recipe. Downloads are stored
in the folder HYDET_CACHE, by default in the user's cache. More: docs/weights.md.
"""


class _Parser(argparse.ArgumentParser):
    """Raises errors, so that they end the command in one line as in the other commands."""

    def error(self, message: str) -> NoReturn:
        """Report a wrong command line."""
        raise ConfigError(f"{message}; --help shows the usage")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="python -m src.weights",
        description="List published recipes, and download, inspect or convert weights.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="print the published recipes and their numbers")
    listing.add_argument(
        "pattern", nargs="?", default="*", help="part of a name, or a pattern such as '*mask*3x'"
    )
    download = commands.add_parser("download", help="download weights into the cache, and print their path")
    download.add_argument("source", metavar="SOURCE")
    download.add_argument("--sha256", help="expected hash of the file")
    show = commands.add_parser(
        "show", help="print what a weight file holds, and the model that belongs to it"
    )
    show.add_argument("source", metavar="SOURCE")
    show.add_argument("--depth", type=int, default=3, help="number of parts of module names (default: 3)")
    convert = commands.add_parser("convert", help="write weights as a checkpoint for evaluate and predict")
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("output", metavar="OUT", help="folder of the new checkpoint")
    convert.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="model=..., data.class_names=[...], as in train"
    )
    convert.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="further package that the model may use",
    )
    return parser


def _run(arguments: Sequence[str]) -> None:
    options = build_parser().parse_args(arguments)
    console = OutputConsole()
    if options.command == "list":
        _list(console, options.pattern)
    elif options.command == "download":
        print_lines(console, str(find_weights(options.source, sha256=options.sha256)))
    elif options.command == "show":
        if options.depth < 1:
            raise ConfigError(f"--depth must be at least 1, got {options.depth}")
        _show(console, summarize_weights(options.source), options.depth)
    else:
        checkpoint, report = convert_weights(
            options.source, options.output, overrides=options.overrides, allowed=options.allow
        )
        names = checkpoint.class_names or ()
        lines = [*str(report).splitlines(), f"{len(names)} classes: {_shorten(names)}"]
        print_lines(console, *lines, f"checkpoint: {checkpoint.path}")


def _list(console: OutputConsole, pattern: str) -> None:
    chosen = _match(pattern)
    columns = {key: head for key, head in _COLUMNS.items() if any(key in r.published for r in chosen)}
    table = Table()
    table.add_column("recipe", overflow="fold", min_width=max(len(r.name) for r in chosen))
    for head in columns.values():
        table.add_column(head, justify="right")
    table.add_column("trained model")
    for r in chosen:
        numbers = [f"{r.published[key]:.1f}" if key in r.published else "-" for key in columns]
        table.add_row(Text(r.name), *numbers, "published" if r.url else "-")
    console.print(table, soft_wrap=True)
    print_lines(console, f"{len(chosen)} recipes; train one with experiment=RECIPE init_from=recipe")


def _match(pattern: str) -> list[Recipe]:
    """Return the recipes whose name contains the pattern.

    Raises:
        ConfigError: if there is none.
    """
    lowered = f"*{pattern.lower()}*"
    chosen = [r for name, r in recipes().items() if fnmatch.fnmatchcase(name.lower(), lowered)]
    if not chosen:
        raise ConfigError(
            f"no published recipe matches {pattern!r}; `list` without a pattern prints all of them"
        )
    return chosen


def _show(console: OutputConsole, summary: WeightsSummary, depth: int) -> None:
    count = sum(tensor.numel() for tensor in summary.tensors.values())
    print_lines(
        console,
        f"{summary.path}: {summary.format}",
        f"{len(summary.tensors)} tensors, {count / 1e6:.1f} million numbers"
        + (f"; {summary.num_renamed} have other names in the file" if summary.num_renamed else ""),
    )
    table = Table()
    table.add_column("module", overflow="fold")
    for head in ("tensors", "numbers"):
        table.add_column(head, justify="right")
    table.add_column("shapes", overflow="fold")
    for module in summarize_modules(summary.tensors, depth):
        table.add_row(
            Text(printable(module.name)),
            str(module.num_tensors),
            f"{module.num_parameters:,}",
            Text(_list_shapes(module)),
        )
    console.print(table)
    for reason in sorted(set(summary.skipped.values())):
        names = [name for name, why in summary.skipped.items() if why == reason]
        print_lines(console, f"not used ({reason}): {_shorten(names)}")
    if summary.num_classes is not None:
        known = _shorten(summary.class_names) if summary.class_names else "names unknown"
        print_lines(console, f"{summary.num_classes} classes: {known}")
    print_lines(console, f"model: {_describe_model(summary)}")


def _describe_model(summary: WeightsSummary) -> str:
    if summary.model is None and summary.overrides:
        return f"a backbone, init_from= loads it: {' '.join(summary.overrides)}"
    if summary.model is None:
        return "not known; `convert` takes it as model=... backbone=..., and init_from= loads what fits"
    return f"{summary.model} {shlex.join(summary.overrides)}".rstrip()


def _list_shapes(module: ModuleSummary) -> str:
    shapes = {name: "x".join(map(str, shape)) or "scalar" for name, shape in module.shapes.items()}
    return printable(", ".join(f"{name} {shape}" for name, shape in shapes.items()))


def _shorten(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MAX_NAMES])}{', ...' if len(names) > _MAX_NAMES else ''}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return run_plain_command(lambda: _run(typed))


if __name__ == "__main__":
    sys.exit(main())
