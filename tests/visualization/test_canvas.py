import pytest
import torch

from hydet.visualization.canvas import Canvas, as_rgb, font_size, line_width

from .conftest import changed_pixels

RED = (255, 0, 0)


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8), None])
def test_other_values_than_images_are_rejected(image):
    with pytest.raises((TypeError, ValueError), match="an image must"):
        as_rgb(image)


def test_a_grayscale_image_becomes_rgb():
    image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    assert torch.equal(as_rgb(image), image.repeat(3, 1, 1))


def test_pixels_without_lines_stay_unchanged(gray):
    assert torch.equal(Canvas(gray).finish(), gray)
    noise = torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8)
    canvas = Canvas(noise)
    canvas.path([(10, 10), (30, 10)], RED)
    assert not changed_pixels(canvas.finish(), noise)[20:].any()


def test_a_box_is_kept_inside_the_image(gray):
    canvas = Canvas(gray)
    canvas.box((-50, -50, 500, 500), RED)
    changed = changed_pixels(canvas.finish(), gray)
    assert changed[0].all() and changed[-1].all() and changed[:, 0].all() and not changed[40, 60]


def test_a_dashed_box_has_gaps(gray):
    canvas = Canvas(gray)
    canvas.box((10, 10, 100, 70), RED, dashed=True)
    row = changed_pixels(canvas.finish(), gray)[10, 10:100]
    assert row.any() and not row.all()


def test_a_point_is_a_dot_or_a_ring(gray):
    centers = []
    for filled in (True, False):
        canvas = Canvas(gray)
        canvas.point(40, 40, RED, filled=filled)
        centers.append(canvas.finish()[:, 40, 40].tolist())
    assert centers[0][0] > 200 > centers[1][0]


def test_a_label_that_would_cover_an_earlier_one_is_dropped(gray):
    canvas = Canvas(gray)
    for _ in range(60):
        canvas.label("label", (60, 40, 60, 40), RED)
    crowded = canvas.finish()
    canvas = Canvas(gray)
    for _ in range(5):  # the number of positions around a point
        canvas.label("label", (60, 40, 60, 40), RED)
    assert torch.equal(crowded, canvas.finish())


def test_sizes_grow_with_the_image():
    assert line_width(10, 10) == 1 and line_width(2000, 2000) > line_width(400, 400)
    assert font_size(10, 10) == 10 and font_size(2000, 2000) > font_size(800, 800)


@pytest.mark.parametrize(
    "text", ["line\nbreak", "漢字 Жук ψ", "\ud800", "a" * 5000, "[/large] ${price} ???", "\u200b"]
)
def test_a_label_can_be_any_text(gray, text):
    canvas = Canvas(gray)
    canvas.label(text, (20, 30, 100, 70), RED)
    assert canvas.finish().shape == gray.shape
