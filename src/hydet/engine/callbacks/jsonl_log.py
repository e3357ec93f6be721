"""Log values as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hydet.files import naming_write_errors, write_atomically

from .logger import Logger

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["JsonlLog"]


class JsonlLog(Logger):
    """Append ``{"step": 20, "kind": "training", "loss/total": ...}`` and ``"kind": "evaluation"`` lines to a file.

    A resumed run removes the lines after its checkpoint, so that the file has each step once. A new run renames the
    file of an older run.

    Args:
        every: steps between training lines, which hold means since the previous line.
        file: path below the output folder.
    """

    def __init__(self, *, every: int = 20, file: str = "metrics.jsonl") -> None:
        super().__init__(every=every)
        self.file = file
        self._stream: IO[str] | None = None

    def open(self, trainer: Trainer) -> None:
        """Open the file to append lines."""
        path = trainer.output_dir / self.file
        with naming_write_errors(path):
            self._open(trainer, path)

    def _open(self, trainer: Trainer, path: Path) -> None:
        if path.is_file() and trainer.resumed_from is not None:
            write_atomically(path, "".join(_lines_until(path, trainer.step)))
        elif path.is_file():
            path.rename(_unused_name(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8", newline="\n")

    def log_training(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Append a line of training values."""
        self._write(trainer.step, "training", values)

    def log_metrics(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Append a line of metrics."""
        self._write(trainer.step, "evaluation", metrics)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what a full disk refused is still in the buffer
                self._stream.close()
            self._stream = None

    def _write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        if self._stream is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with naming_write_errors(self._stream.name):
            self._stream.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
            self._stream.flush()


def _lines_until(path: Path, step: int) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record: object = json.loads(line)
        except json.JSONDecodeError:  # cut off when the run was killed
            continue
        if isinstance(record, dict) and record.get("step", 0) <= step:
            lines.append(line + "\n")
    return lines


def _unused_name(path: Path) -> Path:
    number = 1
    while (unused := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return unused
