import pytest
import torch

from hydet.data import Resize, ResizeShortestEdge, ScaleJitter
from hydet.structures import RotatedBoxes, resize_with_pillow


@pytest.mark.parametrize("size", [(37, 51), (90, 131)])
def test_exact_resize_is_that_of_pillow(make_inputs, size):
    image = make_inputs()["image"]
    exact = Resize(size=size)({"image": image})["image"]
    assert torch.equal(exact, resize_with_pillow(image.as_subclass(torch.Tensor), size))
    fast = Resize(size=size, exact=False)({"image": image})["image"]
    assert (fast.int() - exact.int()).abs().max() <= 1


def test_all_inputs_are_resized_alike(make_inputs, bounds_of_mask):
    outputs = Resize(size=(80, 180))(make_inputs())
    assert outputs["boxes"].tolist()[0] == [15, 8, 75, 60]
    assert outputs["points"].tolist() == [[15, 8], [75, 60]]
    assert bounds_of_mask(outputs["masks"][0]) == [15, 8, 75, 60]
    assert outputs["labels"].shape == (80, 180) and outputs["labels"].dtype == torch.uint8
    expected = RotatedBoxes(torch.tensor([[20.0, 15.0, 10.0, 6.0, 30.0]]))
    expected.scale(3.0, 2.0)
    torch.testing.assert_close(outputs["rotated"].as_subclass(torch.Tensor), expected.tensor)
    assert outputs["boxes"].canvas_size == outputs["points"].canvas_size == (80, 180)


def test_range_and_choice_of_lengths(make_inputs):
    def lengths(count, **options):
        transform = ResizeShortestEdge(**options)
        return {min(transform(make_inputs())["image"].shape[1:]) for _ in range(count)}

    assert lengths(60, short=(20, 24), sampling="range") == {20, 21, 22, 23, 24}
    assert lengths(20, short=[20, 24]) == {20, 24}
    assert lengths(1, short=80, max_size=60) == {40}


def test_scale_jitter_stays_in_its_range_and_keeps_the_aspect_ratio(make_inputs):
    transform = ScaleJitter(size=(80, 80), min_scale=0.5, max_scale=1.5)
    for _ in range(20):
        height, width = transform(make_inputs())["image"].shape[1:]
        assert 40 <= width <= 120 and abs(height / width - 40 / 60) < 0.03


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResizeShortestEdge(short=[]),
        lambda: ResizeShortestEdge(short=0),
        lambda: ResizeShortestEdge(short=(5, 3), sampling="range"),
        lambda: ResizeShortestEdge(short=5, sampling="best"),
        lambda: ScaleJitter(size=(5, 5), min_scale=0),
        lambda: Resize(size=(5,)),
    ],
)
def test_wrong_arguments_are_rejected(make):
    with pytest.raises(ValueError):
        make()
