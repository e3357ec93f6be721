import dataclasses

import numpy as np
import pytest
import torch

from hydet.data import Proposals, ShapesDataset, segment_to_mask

SQUARE = [np.array([1.0, 1, 3, 1, 3, 3, 1, 3])]


@pytest.fixture(scope="module")
def record():
    return ShapesDataset(num_images=5, seed=2)[3]


def test_bitmasks_come_from_masks_or_segments(record):
    from_segments = dataclasses.replace(record, masks=None)
    assert len(record) > 0 and torch.equal(from_segments.bitmasks(), record.bitmasks())


def test_bitmasks_of_a_record_without_objects(record):
    empty = dataclasses.replace(record, masks=None, segments=[])
    assert empty.bitmasks().shape == (0, record.height, record.width)


def test_bitmasks_require_regions(record):
    with pytest.raises(ValueError, match="has no masks"):
        dataclasses.replace(record, masks=None, segments=None).bitmasks()


def test_segment_to_mask_reads_every_form():
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:3] = True
    code = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
    np.testing.assert_array_equal(segment_to_mask(SQUARE, 4, 5), expected)
    np.testing.assert_array_equal(segment_to_mask(code, 4, 5), expected)
    assert not segment_to_mask(None, 4, 5).any()


def test_segment_to_mask_refuses_another_size():
    with pytest.raises(ValueError, match="does not match"):
        segment_to_mask({"size": [5, 4], "counts": [20]}, 4, 5)


def test_proposals_check_their_shapes():
    with pytest.raises(ValueError, match="Proposals"):
        Proposals(boxes=torch.zeros(2, 4), objectness_logits=torch.zeros(3))
    with pytest.raises(ValueError, match="Proposals"):
        Proposals(boxes=torch.zeros(2, 5), objectness_logits=torch.zeros(2))
    assert len(Proposals(boxes=torch.zeros(2, 4), objectness_logits=torch.zeros(2))) == 2
