"""The output folder of a command: one per run, claimed before Hydra writes to it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from hydet.config import ConfigError, is_sweep

__all__ = ["claim_folder", "with_run_folder"]

_KEY = re.compile(r"\+{0,2}output_dir=(.*)", re.DOTALL)
_EMPTY = ("", "''", '""', "null")
# Hydra writes nothing on these processes: no folder, no copy of the config, no log.
_SILENT = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]


def with_run_folder(arguments: Sequence[str], config: DictConfig | None) -> list[str]:
    """Return a command line that names the folder of the run.

    A default name holds the time in seconds, and two jobs can start in the same second. So the main process creates the
    folder here, with a number behind its name if another run has it already. The other processes of a distributed run
    receive the name from the main process later, and Hydra creates nothing for them. In a sweep, ``output_dir`` is the
    folder of the sweep.

    Args:
        arguments: command line, flags included.
        config: config composed from its choices, with the default of ``output_dir``; None if it cannot be composed.

    Raises:
        ConfigError: if ``output_dir`` is empty.
    """
    typed = next((match[1].strip() for a in reversed(arguments) if (match := _KEY.fullmatch(a))), None)
    if typed in _EMPTY:
        raise ConfigError(
            f"output_dir={typed}: must name a folder; leave it out for one named after the time"
        )
    if is_sweep(arguments):
        names_sweep = any(a.startswith(("hydra.sweep.dir=", "hydra.sweep.subdir=")) for a in arguments)
        if typed is None or names_sweep:
            return list(arguments)
        if "," in typed and typed[0] not in "'\"":  # a sweep over folders: each run writes to its own
            return [*arguments, "hydra.sweep.dir=.", "hydra.sweep.subdir=${output_dir}"]
        return [*arguments, f"hydra.sweep.dir={typed}"]
    if _flags_only_print(arguments):
        return list(arguments)
    if int(os.environ.get("RANK", "0")) > 0:
        return [*arguments, *_SILENT]
    if typed is not None or config is None:
        return list(arguments)
    default = config._get_node("output_dir")
    if default is None or "${now:" not in str(default._value()):
        return list(arguments)
    return [*arguments, f"output_dir='{claim_folder(Path(str(config.output_dir)))}'"]


def claim_folder(folder: Path) -> Path:
    """Create a folder that no other run has, and return its path: ``folder``, or with ``-2``, ``-3``, ... behind it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = folder, 1
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def _flags_only_print(arguments: Sequence[str]) -> bool:
    flags = (
        "--cfg",
        "-c",
        "--hydra-help",
        "--info",
        "-i",
        "--version",
        "--resolve",
        "--package",
        "-p",
    )
    return any(argument.partition("=")[0] in flags for argument in arguments)
