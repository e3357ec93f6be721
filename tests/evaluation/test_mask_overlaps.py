import numpy as np
import pytest
from faster_coco_eval import mask as rle

from hydet.evaluation.mask_overlaps import (
    check_dilation_ratio,
    limit_by_boundaries,
    mask_boundary,
    mask_overlaps,
    to_run_lengths,
)


def encode(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)[..., None]))[0]


def slow_boundary(mask, width):
    """Keep the pixels of a mask whose square neighborhood leaves the mask or the image."""
    boundary = np.zeros_like(mask)
    padded = np.pad(mask, width)
    for y, x in zip(*mask.nonzero()):
        boundary[y, x] = not padded[y : y + 2 * width + 1, x : x + 2 * width + 1].all()
    return boundary


def random_mask(rng, size=(37, 52)):
    mask = np.zeros(size, dtype=bool)
    for _ in range(3):
        y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        mask[y : y + rng.integers(3, 30), x : x + rng.integers(3, 30)] = True
    return mask & (rng.random(size) > 0.002)  # with a few holes


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_boundaries_equal_their_definition(width):
    rng = np.random.default_rng(width)
    for _ in range(10):
        mask = random_mask(rng)
        assert (rle.decode(mask_boundary(encode(mask), width)) == slow_boundary(mask, width)).all()


def test_image_border_is_part_of_a_boundary_and_an_empty_mask_has_none():
    full = np.ones((9, 12), dtype=bool)
    assert rle.area(mask_boundary(encode(full), 2)) == 9 * 12 - 5 * 8
    assert rle.area(mask_boundary(encode(~full), 2)) == 0


def test_overlaps_are_the_smaller_of_mask_iou_and_boundary_iou():
    rng = np.random.default_rng(0)
    gt = [random_mask(rng) for _ in range(4)]
    masks = [mask ^ (rng.random(mask.shape) < 0.02) for mask in gt] + [random_mask(rng)]
    crowd = np.array([False, False, True, False])
    codes, gt_codes = [encode(mask) for mask in masks], [encode(mask) for mask in gt]
    mask_ious = mask_overlaps(codes, gt_codes, crowd)
    limited = limit_by_boundaries(mask_ious, codes, gt_codes, crowd, 0.05)
    width = round(0.05 * np.hypot(37, 52))
    for d, mask in enumerate(masks):
        for g, gt_mask in enumerate(gt):
            expected = mask_ious[d, g]
            if not crowd[g] and expected >= 0.5:
                a, b = slow_boundary(mask, width), slow_boundary(gt_mask, width)
                expected = min(expected, (a & b).sum() / (a | b).sum())
            assert limited[d, g] == pytest.approx(expected)
    assert (limited < mask_ious).any()
    assert mask_overlaps([], gt_codes, crowd).shape == (0, 4)


def test_regions_of_every_kind_become_run_lengths():
    square = to_run_lengths([[2, 1, 6, 1, 6, 4, 2, 4]], (8, 10))
    assert rle.area(square) == 12
    assert rle.area(to_run_lengths({"size": [8, 10], "counts": [3, 5, 72]}, (8, 10))) == 5
    assert rle.area(to_run_lengths(None, (8, 10))) == 0
    assert to_run_lengths(square, (8, 10)) is square


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, float("nan")])
def test_invalid_ratios_are_rejected(ratio):
    with pytest.raises(ValueError, match="boundary_dilation_ratio"):
        check_dilation_ratio(ratio)
