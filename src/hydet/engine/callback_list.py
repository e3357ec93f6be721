"""Sort, name and combine the callbacks of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from .callbacks.callback import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["name_callbacks", "replaced_weights", "sort_callbacks"]


def sort_callbacks(callbacks: Sequence[Callback | None] | Mapping[str, Callback | None]) -> list[Callback]:
    """Drop the callbacks that are None and sort the others by phase; those of one phase keep their order.

    Raises:
        TypeError: if an entry is not a callback.
    """
    values = callbacks.values() if isinstance(callbacks, Mapping) else callbacks
    active = [callback for callback in values if callback is not None]
    for callback in active:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must derive from hydet.engine.Callback, got {type(callback).__name__}"
            )
    return sorted(active, key=lambda callback: callback.phase)


def name_callbacks(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Name callbacks by their class; the second of a class is called ``<class>-2``, and so on."""
    named: dict[str, Callback] = {}
    for callback in callbacks:
        name, count = type(callback).__name__, 1
        while (key := name if count == 1 else f"{name}-{count}") in named:
            count += 1
        named[key] = callback
    return named


@contextmanager
def replaced_weights(callbacks: Sequence[Callback], trainer: Trainer) -> Iterator[bool]:
    """Let callbacks replace the weights of the model inside the context; yield True if any callback did."""
    with ExitStack() as stack:
        replacements = [callback.evaluation_weights(trainer) for callback in callbacks]
        contexts = [context for context in replacements if context is not None]
        for context in contexts:
            stack.enter_context(context)
        yield bool(contexts)
