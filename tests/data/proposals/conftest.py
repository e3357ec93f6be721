import pickle
from types import SimpleNamespace

import pytest
import torch

from hydet.data import Proposals


@pytest.fixture
def proposals():
    """Proposals by image id; image 3 has none."""
    return {
        7: Proposals(
            boxes=torch.tensor([[1.0, 2, 11, 22], [0, 0, 5.5, 5]]), objectness_logits=torch.tensor([0.5, 2])
        ),
        3: Proposals(boxes=torch.zeros(0, 4), objectness_logits=torch.zeros(0)),
        5: Proposals(boxes=torch.tensor([[4.0, 4, 8, 9]]), objectness_logits=torch.tensor([-1.0])),
    }


@pytest.fixture
def assert_equal(proposals):
    """Check that a ``ProposalFile`` has the entries of ``proposals``."""

    def check(file):
        for image_id, expected in proposals.items():
            actual = file.of_image(image_id)
            assert torch.equal(actual.boxes, expected.boxes) and actual.boxes.dtype == torch.float32
            assert torch.equal(actual.objectness_logits, expected.objectness_logits)
            assert actual.objectness_logits.dtype == torch.float32

    return check


@pytest.fixture
def reference_pickle(proposals, tmp_path):
    """Write pickles like those of the reference.

    ``content(**changes)`` returns the dict, without the keys that are ``...``; ``write(content, protocol)`` its path.
    """

    def content(**changes):
        columns = {
            "ids": list(proposals),
            "boxes": [p.boxes.numpy() for p in proposals.values()],
            "objectness_logits": [p.objectness_logits.numpy() for p in proposals.values()],
            "bbox_mode": 0,
        }
        return {key: value for key, value in (columns | changes).items() if value is not ...}

    def write(value, protocol=4):
        path = tmp_path / "proposals.pkl"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        return path

    return SimpleNamespace(content=content, write=write)
