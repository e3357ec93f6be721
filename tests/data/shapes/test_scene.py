import numpy as np

from hydet.data import segment_to_mask
from hydet.data.shapes.scene import draw_scene


def test_scene_depends_only_on_the_generator(style):
    a, b = (draw_scene(np.random.default_rng(4), 60, 80, style) for _ in range(2))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.ids, b.ids)


def test_annotations_follow_from_the_regions(style):
    num_objects = 0
    for seed in range(30):
        scene = draw_scene(np.random.default_rng(seed), 60, 80, style)
        first_id = len(scene.textures) + 1
        assert scene.image.shape == (60, 80, 3) and scene.ids.max() < first_id + len(scene.classes)
        for i, segment in enumerate(scene.segments):
            num_objects += 1
            mask = scene.ids == first_id + i
            np.testing.assert_array_equal(segment_to_mask(segment, 60, 80), mask)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert scene.boxes[i].tolist() == box and scene.areas[i] == mask.sum()
            assert scene.iscrowd[i] or scene.keypoints[i].any()
            assert not (scene.iscrowd[i] and scene.keypoints[i].any())
    assert num_objects > 50


def test_scene_without_objects(style):
    scenes = (draw_scene(np.random.default_rng(seed), 40, 40, style) for seed in range(100))
    empty = next(scene for scene in scenes if not len(scene.classes))
    assert empty.boxes.shape == (0, 4) and empty.rotated_boxes.shape == (0, 5)
    assert empty.keypoints.shape == (0, 5, 3) and empty.segments == []
