"""Run a command under Hydra. An error ends it with one line and the exit status 1."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydet.config import complete_command_line, compose_choices, explain, quote_paths, register_resolvers
from hydet.data.loading.worker_errors import explain_worker_death
from hydet.engine.terminal import discard_stream
from hydet.files import WriteError

from . import sweep
from .help_page import asks_for_help, help_page
from .run_folder import with_run_folder

__all__ = ["CommandTask", "printable", "run_command", "run_plain_command"]

# Takes the composed config and the output folder; returns the metric that a sweep maximizes, or None.
CommandTask = Callable[[DictConfig, Path], float | None]

# Errors that a user can cause. Any other error is a fault of hydet and keeps its traceback.
EXPECTED = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    FloatingPointError,
    HydraException,
    OmegaConfBaseException,
)
CLOSED_OUTPUT = 141  # 128 + SIGPIPE, as shells report a program that wrote to a closed pipe
FULL_ERROR = "HYDRA_FULL_ERROR"


def run_command(
    task: CommandTask,
    *,
    config_name: str,
    arguments: Sequence[str] | None = None,
    prepare: Callable[[Sequence[str]], Sequence[str]] = list,
) -> int:
    """Run a task under Hydra.

    Args:
        task: the command.
        config_name: primary config of the command, a file at the top of the tree.
        arguments: the command line; by default the one of the process.
        prepare: turns the typed command line into the one that Hydra reads.

    Returns:
        The exit status: 0, also after the page of ``--help``; 1 after an error, which was printed in one line; 141 if
        standard output was closed.
        ``HYDRA_FULL_ERROR=1`` shows the traceback instead.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    if asks_for_help(typed):
        return _print_page(help_page(config_name))
    full_error = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # otherwise Hydra prints a traceback and exits
    failure: list[Exception] = []

    @functools.wraps(task)
    def run(config: DictConfig) -> float | None:
        try:
            # torch raises the death of a worker process wherever this process is, such as in a training step.
            with explain_worker_death():
                return task(config, Path(HydraConfig.get().runtime.output_dir))
        except EXPECTED as error:
            # Hydra prints a line of its own for an exception; in a sweep that line says which run failed.
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                sweep.record_failure(
                    Path(HydraConfig.get().runtime.output_dir), _one_line(error, config_name, typed)
                )
                raise
            failure.append(error)
            return None

    register_resolvers()
    argv = sys.argv
    try:
        typed = quote_paths(prepare(typed))
        chosen = compose_choices(typed, config_name=config_name)
        completed = complete_command_line(typed, config_name=config_name, config=chosen)
        sys.argv = [sys.argv[0], *with_run_folder(completed, chosen)]
        hydra.main(config_path="pkg://hydet.conf", config_name=config_name, version_base="1.3")(run)()
        if failure:
            raise failure[0]
    except EXPECTED as error:
        if full_error == "1":
            raise
        _print_error(printable(_one_line(error, config_name, typed)))
        return CLOSED_OUTPUT if isinstance(error, BrokenPipeError) else 1
    finally:
        sweep.print_finished()
        sys.argv = argv
        if full_error is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = full_error
    return 0


def run_plain_command(task: Callable[[], None]) -> int:
    """Run a task that has no config of its own.

    Returns:
        The exit status, and in case of an error one line, as ``run_command`` does.
    """
    try:
        task()
    except SystemExit as ending:  # argparse, after --help
        return int(ending.code or 0)
    except EXPECTED as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        _print_error(printable(_one_line(error)))
        return CLOSED_OUTPUT if isinstance(error, BrokenPipeError) else 1
    return 0


def _print_page(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # read as far as `| head` wanted
        discard_stream(sys.stdout)
        return CLOSED_OUTPUT
    return 0


def _print_error(line: str) -> None:
    try:
        print(f"error: {line}", file=sys.stderr)
    except OSError:  # closed, too, as in `2>&1 | head`
        discard_stream(sys.stderr)


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped: a file name or a class name must not control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _one_line(error: Exception, config_name: str = "", arguments: Sequence[str] = ()) -> str:
    if config_name and (isinstance(error, HydraException) or "Config group override" in str(error)):
        return explain(error, compose_choices(arguments, config_name=config_name), arguments)
    if isinstance(error, OmegaConfBaseException):
        return explain(error)
    if isinstance(error, BrokenPipeError):
        discard_stream(sys.stdout)
        return "standard output was closed before the command ended"
    if isinstance(error, WriteError):
        return " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename}: no such file or folder"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
