import pytest

from hydet.visualization import palette
from hydet.visualization.palette import as_color, shade, text_color


def test_colors_are_distinct_and_a_longer_palette_starts_with_a_shorter_one():
    colors = palette(80)
    assert len(set(colors)) == 80 and colors[:7] == palette(7)
    pairs = [(c, d) for i, c in enumerate(colors[:20]) for d in colors[:i]]
    smallest_distance = min(sum(abs(a - b) for a, b in zip(c, d)) for c, d in pairs)
    assert smallest_distance > 40
    assert palette(0) == [] and set(palette(5)).isdisjoint(palette(5, muted=True))
    with pytest.raises(ValueError, match="-1"):
        palette(-1)


def test_text_contrasts_with_its_plate():
    assert text_color((255, 255, 0)) == (0, 0, 0) and text_color((0, 0, 120)) == (255, 255, 255)


def test_shades_are_distinct_colors():
    for color in palette(20):
        shades = [shade(color, i) for i in range(5)]
        assert shades[0] == color and len(set(shades)) == 5
        assert all(0 <= c <= 255 for s in shades for c in s)
    with pytest.raises(ValueError, match="three numbers"):
        as_color((1, 2))
    with pytest.raises(ValueError, match="three numbers"):
        as_color((1, 2, 300))
