import numpy as np
import pytest
import torch
from PIL import Image

from hydet.structures.image_resizing import resize_nearest, resize_with_pillow, shortest_edge_size


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 1000), 800, 1333, (400, 1333)),
        ((100, 100), 50, None, (50, 50)),
        ((1, 1000), 10, 100, (1, 100)),
    ],
)
def test_shortest_edge_size(size, short, longest, expected):
    assert shortest_edge_size(*size, short, longest) == expected


@pytest.mark.parametrize("size", [(37, 51), (90, 131)])
def test_resize_with_pillow_equals_pillow_for_any_number_of_channels(size):
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    resized = resize_with_pillow(image, size)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized.permute(1, 2, 0).numpy(), np.array(expected))
    assert torch.equal(resize_with_pillow(image[:2], size), resized[:2])
    batch = torch.stack([image, image.flip(0)])
    assert torch.equal(resize_with_pillow(batch, size), torch.stack([resized, resized.flip(0)]))


def test_resize_nearest_repeats_and_drops_pixels():
    labels = torch.tensor([[1, 2], [3, 4]])
    enlarged = resize_nearest(labels, (4, 4))
    assert enlarged.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert torch.equal(resize_nearest(enlarged, (2, 2)), labels)
    assert resize_nearest(labels, (2, 2)) is labels
    masks = torch.rand(2, 3, 5, 7) > 0.5
    assert resize_nearest(masks, (10, 14)).dtype == torch.bool
    assert torch.equal(resize_nearest(masks, (10, 14))[..., ::2, ::2], masks)


def test_resize_nearest_equals_pillow_for_thousands_of_size_pairs():
    """Pillow adds positions up in float64; at a factor of 1.5, every third center lies on a border."""
    generator = np.random.default_rng(0)
    pairs = generator.integers(1, 900, (2000, 2)).tolist()
    pairs += [(old, max(1, round(old * factor))) for old in range(1, 400) for factor in (1.5, 0.75, 2.5)]
    for old, new in pairs:
        labels = np.arange(old, dtype=np.int32)[None]  # (1, W)
        expected = np.array(Image.fromarray(labels).resize((new, 1), Image.Resampling.NEAREST))
        resized = resize_nearest(torch.from_numpy(labels), (1, new))
        assert np.array_equal(resized.numpy(), expected), (old, new)
        assert torch.equal(resize_nearest(torch.from_numpy(labels.T), (new, 1)), resized.T), (old, new)
