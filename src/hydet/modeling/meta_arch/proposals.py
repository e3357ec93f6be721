"""Proposals of a batch, with errors that name the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hydet.modeling.protocols import ProposalGenerator
from hydet.modeling.selection import NonFiniteProposalsError
from hydet.structures import ImageList, Instances, Losses, ModelInput

from .model_inputs import describe_input

__all__: list[str] = []


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
