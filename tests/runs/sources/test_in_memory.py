"""Arrays, tensors and Pillow images as sources."""

import numpy as np
import pytest
import torch
from PIL import Image

from hydet.runs.sources.in_memory import convert_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        np.dstack([PIXELS, PIXELS[:, :, 0]]),  # with transparency
        PIXELS.astype(np.int64),
        PIXELS.astype(np.float32),
        PIXELS / 255,
        PIXELS[::-1][::-1],
        Image.fromarray(PIXELS),
        EXPECTED,
        EXPECTED.float(),
        EXPECTED.double() / 255,
        EXPECTED.to(torch.bfloat16),
    ],
    ids=lambda image: f"{type(image).__name__}-{getattr(image, 'dtype', 'RGB')}",
)
def test_all_kinds_give_the_same_pixels(image):
    converted = convert_image(image, channels="RGB", value_range="auto")
    torch.testing.assert_close(converted, EXPECTED)


@pytest.mark.parametrize("image", [PIXELS[:, :, ::-1], EXPECTED.flip(0)])
def test_bgr(image):
    torch.testing.assert_close(convert_image(image, channels="BGR", value_range="auto"), EXPECTED)


@pytest.mark.parametrize("image", [PIXELS[:, :, 0], PIXELS[:, :, :1], EXPECTED[:1]])
def test_gray(image):
    converted = convert_image(image, channels="BGR", value_range="auto")
    torch.testing.assert_close(converted, EXPECTED[:1].expand(3, -1, -1))


def test_the_result_shares_no_memory():
    array = PIXELS.copy()
    converted = convert_image(array, channels="RGB", value_range="auto")
    array[:] = 0
    torch.testing.assert_close(converted, EXPECTED)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (PIXELS.transpose(2, 0, 1), r"shape \(H, W, 3\) or \(H, W\), got \(3, 5, 7\); torch.from_numpy"),
        (PIXELS[None], r"got \(1, 5, 7, 3\)"),
        (np.zeros((0, 5, 3)), r"got \(0, 5, 3\)"),
        (EXPECTED[None], r"list\(batch\)"),
        (EXPECTED.permute(1, 2, 0), r"shape \(3, H, W\)"),
        (np.zeros((5, 7), dtype=bool), "dtype bool"),
        (np.zeros((5, 7), dtype=complex), "dtype complex"),
    ],
)
def test_wrong_shapes_and_types(image, complaint):
    with pytest.raises(ValueError, match=complaint):
        convert_image(image, channels="RGB", value_range="auto")
