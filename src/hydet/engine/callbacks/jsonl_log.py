"""Numbers as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hydet.distributed import is_main_process

from ..atomic_files import write_atomically
from .callback import Callback
from .loss_window import LossWindow, check_every, is_due

if TYPE_CHECKING:
    from ..trainer import Trainer

__all__ = ["JsonlLog"]


class JsonlLog(Callback):
    """Appends ``{"step": 20, "kind": "training", "loss/total": ...}`` and ``"kind": "evaluation"`` lines to a file.

    A resumed run removes the lines that lie after its checkpoint, so that each step stands there once. A run that
    starts anew moves the file of an older one aside.

    Args:
        every: steps between training lines, which hold means since the last one.
        file: below the output folder.
    """

    def __init__(self, *, every: int = 20, file: str = "metrics.jsonl") -> None:
        self.every = check_every(every)
        self.file = file
        self._window = LossWindow()
        self._stream: IO[str] | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        self._window.clear()
        if not is_main_process():
            return
        path = trainer.output_dir / self.file
        if path.is_file() and trainer.resumed_from is not None:
            write_atomically(path, "".join(_lines_until(path, trainer.step)))
        elif path.is_file():
            number = 1
            while (aside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
                number += 1
            path.rename(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a")

    def on_step_end(self, trainer: Trainer) -> None:
        self._window.add(trainer)
        if is_due(trainer.step, self.every, trainer.max_steps):
            self._write(trainer.step, "training", self._window.summary(trainer))

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self._write(trainer.step, "evaluation", metrics)

    def on_fit_end(self, trainer: Trainer) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        self._close()

    def _write(self, step: int, kind: str, numbers: Mapping[str, float]) -> None:
        if self._stream is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._stream.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        self._stream.flush()

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _lines_until(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text().splitlines():
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError:  # cut short when the run was killed
            continue
        if isinstance(record, dict) and record.get("step", 0) <= step:
            kept.append(line + "\n")
    return kept
