"""How every command runs: Hydra composes, the task works, a failure is one line and a non-zero status."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydet.config import complete_command_line, compose_choices, explain, register_resolvers

from . import sweep

__all__ = ["run_command"]

# What a user can cause; anything else is our own bug and keeps its traceback.
EXPECTED = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    FloatingPointError,
    HydraException,
    OmegaConfBaseException,
)


def run_command(
    task: Callable[[DictConfig], Any],
    *,
    config_name: str,
    arguments: Sequence[str] | None = None,
    prepare: Callable[[Sequence[str]], Sequence[str]] = list,
) -> int:
    """Run ``task`` under Hydra.

    Args:
        task: takes the composed config.
        config_name: its primary config, a file at the top of the tree.
        arguments: the command line; by default that of the process.
        prepare: gives Hydra's command line from the typed one.

    Returns:
        The exit status: 0, or 1 after an error that was printed in one line. ``HYDRA_FULL_ERROR=1`` shows the
        traceback instead.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints a traceback itself and exits
    failure: list[Exception] = []

    @functools.wraps(task)
    def run(config: DictConfig) -> Any:
        try:
            return task(config)
        except EXPECTED as error:
            # Hydra would announce it with a line of its own; in a sweep that line says which run it was.
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failure.append(error)

    register_resolvers()
    before = sys.argv
    typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        typed = list(prepare(typed))
        sys.argv = [sys.argv[0], *complete_command_line(typed, config_name=config_name)]
        hydra.main(config_path="pkg://hydet.conf", config_name=config_name, version_base="1.3")(run)()
        if failure:
            raise failure[0]
    except EXPECTED as error:
        if full_error == "1":
            raise
        print(f"error: {_one_line(error, config_name, typed)}", file=sys.stderr)
        return 1
    finally:
        sweep.print_finished()
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    return 0


def _one_line(error: BaseException, config_name: str, arguments: Sequence[str]) -> str:
    if isinstance(error, HydraException):
        return explain(error, compose_choices(arguments, config_name=config_name))
    if isinstance(error, OmegaConfBaseException):
        return explain(error)
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file or folder"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
