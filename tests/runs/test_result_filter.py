"""Selection of objects by score, class and number."""

import pytest
import torch

from hydet.data import Metadata
from hydet.runs.result_filter import ObjectFilter
from hydet.structures import Boxes, Instances

METADATA = Metadata(thing_classes=("cat", "dog", "cow"))


@pytest.fixture
def output():
    scores, classes = torch.tensor([0.3, 0.9, 0.5, 0.7]), torch.tensor([0, 1, 1, 2])
    instances = Instances((9, 9), pred_boxes=Boxes(torch.rand(4, 4)), scores=scores, pred_classes=classes)
    segments = [
        {"id": i + 1, "isthing": True, "category_id": int(c), "instance_id": i} for i, c in enumerate(classes)
    ]
    return {"instances": instances, "panoptic_seg": (torch.zeros(9, 9), segments)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.3, 0.9, 0.5, 0.7]),
        ({"score_threshold": 0.5}, [0.9, 0.5, 0.7]),
        ({"score_threshold": {"dog": 0.6}}, [0.3, 0.9, 0.7]),
        ({"classes": ["dog", 2]}, [0.9, 0.5, 0.7]),
        ({"classes": []}, []),
        ({"max_detections": 2}, [0.9, 0.7]),
        ({"max_detections": 0}, []),
        ({"classes": ["dog"], "max_detections": 1}, [0.9]),
    ],
)
def test_objects_that_remain(output, options, expected):
    selected = ObjectFilter(METADATA, **options)(output)
    assert selected["instances"].scores.tolist() == pytest.approx(expected)
    assert len(output["instances"]) == 4
    _, segments = selected["panoptic_seg"]
    assert len(segments) == 4
    positions = [s["instance_id"] for s in segments if "instance_id" in s]
    assert positions == list(range(len(expected)))
    categories = [s["category_id"] for s in segments if "instance_id" in s]
    assert categories == selected["instances"].pred_classes.tolist()


def test_proposals_and_maps():
    proposals = Instances(
        (9, 9), proposal_boxes=torch.rand(3, 4), objectness_logits=torch.tensor([-1.0, 2, 3])
    )
    select = ObjectFilter(METADATA, score_threshold=0.9, max_detections=2)
    assert select({"proposals": proposals})["proposals"].objectness_logits.tolist() == [2, 3]
    output = {"sem_seg": torch.rand(2, 3, 3)}
    assert select(output) is output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"score_threshold": {"bird": 0.5}}, r"no class 'bird'; its 3 classes are: cat, dog, cow"),
        ({"classes": [3]}, "no class 3"),
        ({"classes": "cat"}, "a list"),
        ({"max_detections": -1}, "max_detections"),
    ],
)
def test_wrong_options(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        ObjectFilter(METADATA, **options)
