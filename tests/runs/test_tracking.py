"""Numbers of objects that move through a video."""

import sys

import pytest
import torch

from hydet.runs.tracking import ObjectTracker
from hydet.structures import Boxes, Instances, RotatedBoxes


def frame(*objects):
    """Return the objects (x, y, class, score), 20 pixels wide and high."""
    rows = torch.tensor(objects, dtype=torch.float32).view(-1, 4)
    return Instances(
        (100, 200),
        pred_boxes=Boxes(torch.cat([rows[:, :2], rows[:, :2] + 20], dim=1)),
        scores=rows[:, 3],
        pred_classes=rows[:, 2].long(),
    )


def track(tracker, frames, rate=10):
    return [tracker.update(f, time=i / rate).track_ids.tolist() for i, f in enumerate(frames)]


def test_objects_keep_their_numbers_in_any_order():
    frames = []
    for i in range(6):
        objects = [(10 + 4 * i, 10, 0, 0.9), (150 - 4 * i, 60, 0, 0.8), (80, 30, 1, 0.9)]
        frames.append(frame(*(objects if i % 2 == 0 else objects[::-1])))
    ids = track(ObjectTracker(rate=10), frames)
    assert ids[0] == [-1] * 3 and sorted(ids[2]) == [1, 2, 3]
    assert all(row == (ids[2] if i % 2 == 0 else ids[2][::-1]) for i, row in enumerate(ids) if i > 0)


def test_classes_do_not_share_tracks_and_weak_objects_start_none():
    frames = [frame((10, 10, 0, 0.9))] * 2 + [frame((10, 10, 1, 0.9))] * 2
    assert track(ObjectTracker(rate=10), frames) == [[-1], [1], [-1], [2]]
    assert track(ObjectTracker(rate=10), [frame((10, 10, 0, 0.2))] * 3) == [[-1]] * 3


def test_a_hidden_object_keeps_its_number_for_a_while():
    seen, hidden = frame((10, 10, 0, 0.9)), frame()
    assert track(ObjectTracker(rate=10), [seen, seen, hidden, hidden, seen])[-1] == [1]
    assert track(ObjectTracker(rate=10, lost_after=0.2), [seen, seen] + [hidden] * 8 + [seen])[-1] == [-1]


def test_rotated_boxes_are_tracked():
    boxes = RotatedBoxes([[50.0, 50, 40, 10, 30]])
    instances = Instances(
        (100, 200), pred_boxes=boxes, scores=torch.tensor([0.9]), pred_classes=torch.tensor([0])
    )
    assert track(ObjectTracker(rate=10), [instances, instances]) == [[-1], [1]]


def test_without_trackers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ImportError, match=r"pip install 'hydet\[track\]'"):
        ObjectTracker(rate=10)
