import dataclasses

import numpy as np

from hydet.data.shapes.objects import (
    CandidateObjects,
    ShapeInstance,
    draw_distractors,
    draw_objects,
    select_visible,
)


def test_objects_respect_the_style(style):
    rng = np.random.default_rng(0)
    num_crowds = num_empty = 0
    for _ in range(200):
        instances, num_objects = draw_objects(rng, 100, 140, style)
        crowds = [i for i in instances if i.iscrowd]
        num_crowds += len(crowds)
        num_empty += not instances
        assert len(crowds) <= 1 and len(instances) >= num_objects
        assert not instances or style.min_objects <= num_objects - len(crowds) <= style.max_objects
        for instance in instances:
            assert 0 <= instance.class_index < len(style.shapes) and instance.area > 0
            if not instance.iscrowd:
                assert instance.rotated_box[2:4].min() >= style.min_size
                assert abs(instance.rotated_box[4]) <= style.rotation
    assert 30 < num_crowds < 90 and 5 < num_empty < 45


def test_angles_beyond_90_degrees_are_normalized(style):
    rng = np.random.default_rng(0)
    instances, _ = draw_objects(rng, 200, 200, dataclasses.replace(style, rotation=180, empty_fraction=0))
    assert all(-90 <= instance.rotated_box[4] < 90 for instance in instances)


def make_square(x):
    polygon = np.array([[x, 0.0], [x + 4, 0], [x + 4, 4], [x, 4]])
    return ShapeInstance(0, [polygon], np.array([x + 2, 2, 4, 4, 0]))


def test_select_visible_drops_hidden_objects():
    positions = (0, 1, 6)  # the second lies behind the first for three quarters
    masks = np.zeros((3, 4, 10), dtype=bool)
    for mask, x in zip(masks, positions):
        mask[:, x : x + 4] = True
    instances = [make_square(x) for x in positions]
    assert select_visible(CandidateObjects(instances, 3), masks, 0.5) == [0, 2]
    assert select_visible(CandidateObjects(instances, 1), masks, 0.5) == [0]
    assert select_visible(CandidateObjects(instances[::-1], 3), masks[::-1], 0.5) == [0, 1]


def test_distractors_are_thin_lines(style):
    rng = np.random.default_rng(0)
    lines = [line for _ in range(20) for line in draw_distractors(rng, 50, 60, style)]
    assert 0 < len(lines) <= 20 * style.max_distractors
    for (polygon,) in lines:
        corners = polygon.reshape(4, 2)
        assert 1.2 <= np.hypot(*(corners[0] - corners[3])) <= 2.4
    assert draw_distractors(rng, 50, 60, dataclasses.replace(style, max_distractors=0)) == []
