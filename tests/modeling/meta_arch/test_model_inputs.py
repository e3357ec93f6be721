import pytest
import torch

from hydet.modeling.meta_arch.model_inputs import (
    batch_label_maps,
    check_image,
    describe_input,
    get_gt_instances,
    get_label_maps,
    get_proposals,
    output_size,
)
from hydet.structures import Boxes, Instances, RotatedBoxes

CPU = torch.device("cpu")


def make_input(boxes=((1.0, 1, 5, 5),), classes=(0,), **fields):
    gt = Instances((8, 8), gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=torch.tensor(classes))
    return {"image": torch.zeros(3, 8, 8), "instances": gt, "file_name": "a.png", **fields}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"file_name": "a.png", "image_id": 3}, "file_name a.png"),
        ({"image_id": 0}, "image_id 0"),
        ({}, "an input without file_name or image_id"),
    ],
)
def test_inputs_are_described_by_their_file_or_id(entry, expected):
    assert describe_input(entry) == expected


def test_output_size_is_that_of_the_input_by_default():
    assert output_size({}, (3, 4)) == (3, 4)
    assert output_size({"height": 30, "width": 40}, (3, 4)) == (30, 40)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 8, 8), r"a\.png: image has shape \(1, 8, 8\)"),
        (torch.zeros(8, 8), "expected"),
        (torch.full((3, 8, 8), float("nan")), "not finite"),
    ],
)
def test_errors_name_unusable_images(image, message):
    with pytest.raises(ValueError, match=message):
        check_image({"image": image, "file_name": "a.png"}, 3)


def test_finite_images_whose_sum_overflows_are_accepted():
    check_image({"image": torch.full((3, 8, 8), 3e38)}, 3)


@pytest.mark.parametrize("get", [get_gt_instances, get_label_maps, get_proposals])
def test_errors_name_missing_fields(get):
    with pytest.raises(ValueError, match=r"a\.png: .* need"):
        get([{"image": torch.zeros(3, 8, 8), "file_name": "a.png"}], CPU)


@pytest.mark.parametrize(
    "box", [(1.0, 1, 1, 5), (5.0, 1, 1, 5), (1.0, 1, float("nan"), 5), (1, 1, float("inf"), 5)]
)
def test_errors_name_degenerate_boxes(box):
    with pytest.raises(ValueError, match=r"a\.png: ground-truth box 1 is"):
        get_gt_instances([make_input([(1.0, 1, 5, 5), box], [0, 0])], CPU)


def test_rotated_boxes_need_positive_sides():
    entry = make_input()
    entry["instances"].gt_boxes = RotatedBoxes([[4.0, 4, 0, 3, 10]])
    with pytest.raises(ValueError, match="positive sides"):
        get_gt_instances([entry], CPU)


@pytest.mark.parametrize("wrong", [-1, 2])
def test_errors_name_classes_out_of_range(wrong):
    with pytest.raises(
        ValueError, match=rf"ground-truth class {wrong} of box 0; the model has classes 0 to 1"
    ):
        get_gt_instances([make_input(classes=[wrong])], CPU, num_classes=2)
    get_gt_instances([make_input(classes=[wrong])], CPU)


class Padding:
    size_divisibility = 4
    padding_constraints = {}


def test_label_maps_are_padded_with_the_ignored_label():
    batch = [make_input(sem_seg=torch.ones(3, 6, dtype=torch.int64)), make_input(sem_seg=torch.zeros(5, 2))]
    labels = batch_label_maps(batch, Padding(), CPU, num_classes=2, ignore_value=255)
    assert labels.shape == (2, 8, 8)
    assert (labels[0, :3, :6] == 1).all() and (labels[0] == 255).sum() == 64 - 18


@pytest.mark.parametrize("wrong", [-1, 2])
def test_errors_name_labels_out_of_range(wrong):
    entry = make_input(sem_seg=torch.full((3, 6), wrong))
    with pytest.raises(ValueError, match=rf"a\.png: sem_seg has label {wrong}; labels are 0 to 1 or 255"):
        batch_label_maps([entry], Padding(), CPU, num_classes=2, ignore_value=255)
