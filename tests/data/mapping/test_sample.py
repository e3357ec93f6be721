import dataclasses

import pytest
import torch

from hydet.data import Proposals
from hydet.data.mapping.sample import select_sample

NOTHING = {"mask_format": None, "keypoints": False, "rotated": False, "sem_seg": False, "proposals": False}


def test_crowd_regions_and_parts_that_are_not_selected_are_dropped(make_record):
    sample = select_sample(make_record(), **NOTHING)
    assert sample.size == (30, 40) and sample.classes.tolist() == [4, 2]
    assert torch.equal(sample.boxes, make_record().boxes[:2])
    parts = (sample.regions, sample.keypoints, sample.rotated_boxes, sample.sem_seg, sample.proposals)
    assert parts == (None,) * 5


def test_all_parts_are_selected(make_record):
    proposals = Proposals(boxes=torch.zeros(4, 4), objectness_logits=torch.zeros(4))
    sample = select_sample(
        make_record(proposals=proposals),
        mask_format="polygon",
        keypoints=True,
        rotated=True,
        sem_seg=True,
        proposals=True,
    )
    assert len(sample.regions.polygons) == len(sample.keypoints) == len(sample.rotated_boxes) == 2
    assert sample.sem_seg.shape == (30, 40) and len(sample.proposals) == 4


@pytest.mark.parametrize(
    ("part", "field", "name"),
    [
        ({"keypoints": True}, "keypoints", "keypoints"),
        ({"rotated": True}, "rotated_boxes", "rotated boxes"),
        ({"sem_seg": True}, "sem_seg", "semantic labels"),
        ({"proposals": True}, "proposals", "WithProposals"),
        ({"mask_format": "bitmask"}, "segments", "masks"),
        ({"mask_format": "polygon"}, "segments", "masks"),
    ],
)
def test_a_part_that_the_record_lacks_is_named(make_record, part, field, name):
    record = dataclasses.replace(make_record(), **{field: None})
    with pytest.raises(ValueError, match=rf"a\.png.*{name}"):
        select_sample(record, **(NOTHING | part))
