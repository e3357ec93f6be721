"""Proposals of a batch: as instances, with errors that name the images, and as padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from hydet.modeling.protocols import ProposalGenerator
from hydet.modeling.selection import NonFiniteProposalsError
from hydet.modeling.selection.suppression import ImageSizes, SelectedBoxes
from hydet.structures import ImageList, Instances, Losses, ModelInput

from .model_inputs import describe_input

__all__: list[str] = []


@runtime_checkable
class PaddedProposalGenerator(Protocol):
    """A proposal generator that works on padded batches, such as ``RPN``."""

    def propose_padded(
        self, features: Mapping[str, Tensor], image_sizes: ImageSizes
    ) -> tuple[SelectedBoxes, Tensor]:
        """Return the proposals, and the number of candidates per image that are not finite."""
        ...


def propose_padded(
    generator: ProposalGenerator | None, features: Mapping[str, Tensor], image_sizes: ImageSizes
) -> SelectedBoxes:
    """Propose regions without waiting for the device.

    Raises:
        TypeError: if there is no proposal generator, or it does not work on padded batches.
    """
    if not isinstance(generator, PaddedProposalGenerator):
        name = "a model without proposal generator" if generator is None else type(generator).__name__
        raise TypeError(f"{name} has no tensor core: it needs the method propose_padded, as RPN has it")
    return generator.propose_padded(features, image_sizes)[0]


def generate_proposals(
    generator: ProposalGenerator,
    batched_inputs: Sequence[ModelInput],
    images: ImageList,
    features: Mapping[str, Tensor],
    targets: Sequence[Instances],
) -> tuple[list[Instances], Losses]:
    """Generate proposals and compute their losses.

    Raises:
        NonFiniteProposalsError: if proposals are not finite; the message also names the files or ids of the images.
    """
    try:
        return generator(images, features, targets)
    except NonFiniteProposalsError as error:
        names = ", ".join(describe_input(batched_inputs[i]) for i in error.image_indices)
        raise NonFiniteProposalsError(f"{names}: {error}", error.image_indices) from error
