import dataclasses

import numpy as np
import pytest

from hydet.data.shapes.painting import (
    TEXTURES,
    Background,
    draw_background,
    paint_background,
    paint_objects,
)


def test_backgrounds_have_one_or_two_regions(style):
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(30):
        background = draw_background(rng, 20, 30, style)
        counts.add(len(background.textures))
        assert background.regions.shape == (20, 30) and background.regions.min() >= 1
        assert background.regions.max() <= len(background.textures) == len(background.colors)
        assert len(set(background.textures)) == len(background.textures)
    assert counts == {1, 2}


def test_backgrounds_without_textures_are_smooth(style):
    plain = dataclasses.replace(style, textures=False)
    for seed in range(10):
        background = draw_background(np.random.default_rng(seed), 20, 30, plain)
        assert background.textures == (TEXTURES.index("smooth"),)


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_vary_around_the_color_of_the_region(name):
    colors = np.array([[0.4, 0.5, 0.6]])
    background = Background(np.ones((64, 90), dtype=np.uint8), (TEXTURES.index(name),), colors)
    canvas = paint_background(np.random.default_rng(1), background)
    assert canvas.shape == (64, 90, 3) and canvas.dtype == np.float32
    np.testing.assert_allclose(canvas.mean(axis=(0, 1)), colors[0], rtol=0.05)
    steps = np.abs(np.diff(canvas[..., 0], axis=1)).max()
    assert (steps < 0.01) == (name == "smooth")


def test_objects_are_painted_in_distinct_colors(style):
    plain = dataclasses.replace(style, noise=0)
    ids = np.ones((20, 30), dtype=np.uint8)
    ids[2:8, 2:8], ids[10:18, 12:28] = 2, 3
    background_color = np.array([[0.9, 0.9, 0.9]])
    canvas = np.full((20, 30, 3), 0.9, dtype=np.float32)
    image = paint_objects(np.random.default_rng(0), canvas, ids, background_color, 2, plain)
    assert image.dtype == np.uint8 and (image[ids == 1] == int(0.9 * 255)).all()
    first, second = image[5, 5].astype(float), image[14, 20].astype(float)
    for a, b in ((first, second), (first, image[0, 0]), (second, image[0, 0])):
        assert np.linalg.norm(a - b) / 255 > style.contrast
    assert image[2, 2].sum() < image[5, 5].sum(), "the border of an object is darker"
