import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from hydet.data import (
    ColorJitter,
    FixedSizeCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    ResizeShortestEdge,
    ScaleJitter,
    shortest_edge_size,
)
from hydet.structures import RotatedBoxes

H, W = 40, 60


def sample(height=H, width=W):
    boxes = torch.tensor([[5.0, 4.0, 25.0, 30.0], [0.0, 0.0, 60.0, 40.0]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 4:30, 5:25] = 1
    masks[1] = 1
    size = (height, width)
    return {
        "image": tv_tensors.Image(torch.randint(0, 256, (3, height, width), dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "rotated": tv_tensors.BoundingBoxes(
            torch.tensor([[20.0, 15.0, 10.0, 6.0, 30.0]]), format="CXCYWHR", canvas_size=size
        ),
        "masks": tv_tensors.Mask(masks),
        "points": tv_tensors.KeyPoints(torch.tensor([[5.0, 4.0], [25.0, 30.0]]), canvas_size=size),
        "labels": tv_tensors.Mask(torch.arange(height * width).reshape(height, width).remainder(7).byte()),
    }


def box_of(mask):
    y, x = mask.nonzero(as_tuple=True)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


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
def test_resize_is_that_of_pillow(size):
    image = sample()["image"]
    ours = Resize(size=size)({"image": image})["image"]
    theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.array(theirs))
    fast = Resize(size=size, exact=False)({"image": image})["image"]
    assert (fast.int() - ours.int()).abs().max() <= 1


def test_everything_is_resized_alike():
    out = Resize(size=(2 * H, 3 * W))(sample())
    assert out["boxes"].tolist()[0] == [15, 8, 75, 60]
    assert out["points"].tolist() == [[15, 8], [75, 60]]
    assert box_of(out["masks"][0]) == [15, 8, 75, 60]
    assert out["labels"].shape == (2 * H, 3 * W) and out["labels"].dtype == torch.uint8
    expected = RotatedBoxes(torch.tensor([[20.0, 15.0, 10.0, 6.0, 30.0]]))
    expected.scale(3.0, 2.0)
    torch.testing.assert_close(out["rotated"].as_subclass(torch.Tensor), expected.tensor)
    assert out["boxes"].canvas_size == out["points"].canvas_size == (2 * H, 3 * W)


@pytest.mark.parametrize(("flip", "axis"), [(RandomHorizontalFlip, 0), (RandomVerticalFlip, 1)])
def test_a_flip_twice_is_nothing_and_masks_follow_boxes(flip, axis):
    before, transform = sample(), flip(p=1.0)
    once = transform(before)
    assert box_of(once["masks"][0]) == once["boxes"].tolist()[0]
    length = (W, H)[axis]
    assert once["points"][0, axis] == length - before["points"][0, axis]
    assert once["rotated"][0, 4] == -30
    twice = transform(once)
    for name, value in before.items():
        assert torch.equal(twice[name], value), name
    never = flip(p=0.0)(before)
    assert all(torch.equal(never[name], value) for name, value in before.items())


def test_range_and_choice_of_lengths():
    seen = {
        min(ResizeShortestEdge(short=(20, 24), sampling="range")(sample())["image"].shape[1:])
        for _ in range(60)
    }
    assert seen == {20, 21, 22, 23, 24}
    seen = {min(ResizeShortestEdge(short=[20, 24])(sample())["image"].shape[1:]) for _ in range(20)}
    assert seen == {20, 24}


@pytest.mark.parametrize(
    ("size", "mode", "low", "high"),
    [
        ((0.5, 0.25), "relative", (20, 15), (20, 15)),
        ((0.5, 0.5), "relative_range", (20, 30), (40, 60)),
        ((10, 1000), "absolute", (10, 60), (10, 60)),
        ((10, 50), "absolute_range", (10, 10), (40, 50)),
    ],
)
def test_random_crop_keeps_things_together(size, mode, low, high):
    for _ in range(20):
        before = sample()
        out = RandomCrop(size=size, mode=mode)(before)
        height, width = out["image"].shape[1:]
        assert low[0] <= height <= high[0] and low[1] <= width <= high[1]
        shift = before["boxes"][0, :2] - out["boxes"][0, :2]
        left, top = (int(s) for s in shift.tolist())
        assert torch.equal(out["image"], before["image"][:, top : top + height, left : left + width])
        assert torch.equal(out["masks"], before["masks"][:, top : top + height, left : left + width])
        torch.testing.assert_close(out["points"] + shift, before["points"])
        torch.testing.assert_close(out["rotated"][:, :2] + shift, before["rotated"][:, :2])


def test_fixed_size_crop_pads_with_what_does_not_count():
    out = FixedSizeCrop(size=(50, 50))(sample())
    assert out["image"].shape == (3, 50, 50) and out["masks"].shape == (2, 50, 50)
    assert (
        (out["image"][:, 40:] == 128).all()
        and (out["labels"][40:] == 255).all()
        and not out["masks"][:, 40:].any()
    )
    assert FixedSizeCrop(size=(50, 50), pad=False)(sample())["image"].shape == (3, 40, 50)


def test_scale_jitter_fits_the_factor():
    for _ in range(20):
        height, width = ScaleJitter(size=(80, 80), min_scale=0.5, max_scale=1.5)(sample())["image"].shape[1:]
        assert 40 <= width <= 120 and abs(height / width - H / W) < 0.03


def test_color_jitter_leaves_geometry_and_respects_zero():
    before = sample()
    out = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)(before)
    assert out["image"].dtype == torch.uint8 and not torch.equal(out["image"], before["image"])
    assert all(torch.equal(out[name], before[name]) for name in before if name != "image")
    assert torch.equal(ColorJitter()(before)["image"], before["image"])
    assert torch.equal(ColorJitter(brightness=0.9, p=0.0)(before)["image"], before["image"])
    grey = ColorJitter(saturation=(0, 0))(before)["image"].int()
    assert (grey[0] - grey[1]).abs().max() == 0


def test_mixes_with_torchvision():
    out = v2.Compose([RandomHorizontalFlip(p=1.0), v2.ColorJitter(brightness=0.1), v2.Resize((20, 30))])(
        sample()
    )
    assert out["image"].shape == (3, 20, 30) and out["boxes"].tolist()[1] == [0, 0, 30, 20]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResizeShortestEdge(short=[]),
        lambda: ResizeShortestEdge(short=0),
        lambda: ResizeShortestEdge(short=(5, 3), sampling="range"),
        lambda: ResizeShortestEdge(short=5, sampling="best"),
        lambda: RandomCrop(size=(2, 2)),
        lambda: RandomCrop(size=(0.5, 0.5), mode="square"),
        lambda: RandomHorizontalFlip(p=2),
        lambda: ScaleJitter(size=(5, 5), min_scale=0),
        lambda: FixedSizeCrop(size=(0, 5)),
        lambda: ColorJitter(brightness=-1),
        lambda: ColorJitter(hue=0.7),
        lambda: Resize(size=(5,)),
    ],
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()
