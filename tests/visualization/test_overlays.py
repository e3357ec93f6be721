import torch

from hydet.visualization.overlays import blend_map, blend_mask_, center_of, contour_of

from .conftest import changed_pixels, make_gray


def make_mask():
    mask = torch.zeros(80, 120, dtype=torch.bool)
    mask[20:60, 30:90] = True
    return mask


def test_a_mask_is_tinted_inside_and_outlined(gray):
    image = make_gray()
    blend_mask_(image, make_mask(), (255, 0, 0), alpha=0.5)
    assert torch.equal(changed_pixels(image, gray), make_mask())
    assert image[0, 40, 60] == 191 and image[0, 20, 60] > 230


def test_a_hatched_mask_has_stripes_and_an_empty_one_changes_nothing(gray):
    image = make_gray()
    blend_mask_(image, make_mask(), (255, 0, 0), alpha=0.5, hatched=True)
    inside = changed_pixels(image, gray)[25:55, 35:85]
    assert inside.any() and not inside.all()
    blank = make_gray()
    blend_mask_(blank, torch.zeros(80, 120, dtype=torch.bool), (255, 0, 0), alpha=0.5)
    assert torch.equal(blank, gray)


def test_contour_has_the_given_width_and_ignores_the_border():
    contour = contour_of(make_mask(), 2)
    assert contour[20:22, 30:90].all() and not contour[22:58, 32:88].any()
    assert not contour_of(torch.ones(5, 5, dtype=torch.bool), 2).any()


def test_a_label_map_is_tinted_with_dark_borders(gray):
    labels = torch.full((80, 120), -1)
    labels[:, 60:] = 0
    labels[:, 90:] = 1
    drawn = blend_map(gray, labels, [(255, 255, 255), (255, 255, 255)], alpha=0.5)
    assert not changed_pixels(drawn, gray)[:, :60].any()
    assert (drawn[:, :, 75] == 191).all() and (drawn[:, :, 90] < 150).all()
    assert torch.equal(blend_map(gray, labels, [], alpha=0.5), gray)


def test_center_lies_inside_the_mask():
    ring = make_mask()
    ring[25:55, 35:70] = False  # the center of gravity is in the hole
    x, y = center_of(ring)
    assert ring[int(y), int(x)] and x > 70
