"""Interfaces between the trainer and the objects that it receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from hydet.structures import ModelInput, ModelOutput

__all__ = [
    "Batch",
    "Closeable",
    "DeclaresInputFormat",
    "Example",
    "KeepsTrainingState",
    "MetadataLike",
    "NormalizesPerStep",
    "StateDict",
    "StatefulLoader",
]

Batch: TypeAlias = Sequence[ModelInput]

# Tensors, numbers, strings, and lists and dicts of them: what a checkpoint can hold and `weights_only=True` can load.
StateDict: TypeAlias = dict[str, Any]


class Example(NamedTuple):
    """One evaluated image."""

    model_input: ModelInput
    model_output: ModelOutput


@runtime_checkable
class StatefulLoader(Protocol):
    """A training loader that can continue at the batch where an earlier run stopped."""

    def state_dict(self) -> StateDict:
        """Return the position of the loader, counted by the batches that its consumer received."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a position that ``state_dict`` returned."""
        ...


@runtime_checkable
class KeepsTrainingState(Protocol):
    """A module with values that training needs and ``state_dict`` does not hold, such as a running normalizer."""

    def training_state(self) -> StateDict:
        """Return the values."""
        ...

    def load_training_state(self, state: StateDict) -> None:
        """Continue from values that ``training_state`` returned."""
        ...


@runtime_checkable
class NormalizesPerStep(Protocol):
    """A model whose losses are all divided by one number that depends on every batch of an optimizer step.

    It is called as a whole: a module that only contains such a model is not one, and neither is a subclass that adds a
    loss with another divisor, unless it overrides both methods.
    """

    def start_step(self, num_batches: int) -> None:
        """Start a step, whose losses are averaged over ``num_batches`` forward passes."""
        ...

    def finish_step(self) -> Tensor | None:
        """End the step and return the factor for all its gradients and losses; None leaves them as they are."""
        ...


@runtime_checkable
class DeclaresInputFormat(Protocol):
    """A model that declares the channel order of its input images."""

    @property
    def input_format(self) -> str | None:
        """``"RGB"``, ``"BGR"`` or None."""
        ...


@runtime_checkable
class MetadataLike(Protocol):
    """Class names and ids of a dataset that a checkpoint can store, such as ``hydet.data.Metadata``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ...


@runtime_checkable
class Closeable(Protocol):
    """An iterator that holds resources, such as worker processes."""

    def close(self) -> None:
        """Release the resources."""
        ...
