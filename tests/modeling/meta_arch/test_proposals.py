import pytest
import torch

from hydet.modeling import NonFiniteProposalsError
from hydet.modeling.meta_arch.proposals import generate_proposals
from hydet.structures import ImageList

IMAGES = ImageList(torch.zeros(2, 3, 8, 8), [(8, 8)] * 2)


def test_errors_about_non_finite_proposals_name_the_files():
    def diverge(images, features, targets):
        raise NonFiniteProposalsError("3 boxes are NaN", [1])

    with pytest.raises(NonFiniteProposalsError, match=r"^file_name b\.png: 3 boxes are NaN") as raised:
        generate_proposals(diverge, [{"file_name": "a.png"}, {"file_name": "b.png"}], IMAGES, {}, [])
    assert raised.value.image_indices == (1,)


def test_proposals_and_losses_of_the_generator_are_returned():
    assert generate_proposals(lambda *args: (args, {}), [], IMAGES, {}, []) == ((IMAGES, {}, []), {})
