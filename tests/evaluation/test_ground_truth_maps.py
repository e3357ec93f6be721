import pytest
import torch

from hydet.evaluation.ground_truth_maps import ground_truth_map, image_name


def test_names_of_images():
    assert image_name({"file_name": "a.png", "image_id": 3}) == "a.png"
    assert image_name({"image_id": 3}) == "image 3" and image_name({}) == "image ?"


def test_maps_are_returned_as_arrays():
    entry = {"ground_truth": {"sem_seg": torch.zeros(2, 3, dtype=torch.uint8)}}
    assert ground_truth_map(entry, "sem_seg", (2, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "no ground truth 'sem_seg'"),
        ({"ground_truth": {"sem_seg": torch.zeros(2, 3)}}, r"3 x 2 .*\(2, 3\)"),
    ],
)
def test_missing_maps_and_other_sizes_are_named(entry, message):
    with pytest.raises(ValueError, match=r"a\.png") as error:
        ground_truth_map({"file_name": "a.png", **entry}, "sem_seg", (2, 3) if not entry else (2, 2))
    assert error.match(message.replace("3 x 2", "2 x 2"))
