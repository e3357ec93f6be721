"""Another process of the run that ended or does not answer, described in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

__all__ = ["LostProcessError", "explain_lost_process"]

# Messages of the backends and of the store where processes meet. All of them are plain RuntimeErrors in some cases.
_SOURCES = re.compile(r"gloo|nccl|TCPStore|waiting for clients", re.IGNORECASE)
_TIMEOUT = re.compile(r"time(d)?[ -]?out", re.IGNORECASE)
_JOINED = re.compile(r"(?P<joined>\d+)/(?P<all>\d+) clients joined")


class LostProcessError(ConnectionError):
    """Another process of the run ended, or did not answer in time."""


@contextmanager
def explain_lost_process(*, timeout: float, advice: str = "") -> Iterator[None]:
    """Turn an error of a collective operation into a ``LostProcessError`` of one line.

    Args:
        timeout: seconds for which a process waits for another one.
        advice: end of the message, such as how to go on.
    """
    try:
        yield
    except RuntimeError as error:
        description = describe_lost_process(error, timeout=timeout)
        if description is None:
            raise
        raise LostProcessError(f"{description}; {advice}" if advice else description) from error


def describe_lost_process(error: RuntimeError, *, timeout: float) -> str | None:
    """Return one line if a collective operation failed because of another process, otherwise None."""
    message = str(error)
    if not isinstance(error, dist.DistError) and not _SOURCES.search(message):
        return None
    joined = _JOINED.search(message)
    if joined is not None:
        return (
            f"only {joined['joined']} of {joined['all']} processes started within {timeout:g} seconds "
            "(distributed_timeout)"
        )
    if _TIMEOUT.search(message):
        return f"another process of this run did not answer for {timeout:g} seconds (distributed_timeout)"
    return "another process of this run ended; its output, if any, has the reason"
