"""Labels that models need and data lack."""

import pytest
from torch import nn

from hydet.data import ShapesDataset
from hydet.runs.label_check import MissingLabelsError, require_labels


def model_of(*tasks):
    model = nn.Identity()
    model.tasks = tasks
    return model


def data_with(*labels):
    dataset = ShapesDataset(num_images=1)
    dataset.labels = None if labels == (None,) else frozenset(labels)
    dataset.required = []
    dataset.require = dataset.required.append
    return dataset


def test_missing_masks_name_the_models_that_fit():
    with pytest.raises(
        MissingLabelsError, match=r"needs masks, but data\.val has none; .* model=faster_rcnn_fpn$"
    ) as error:
        require_labels(model_of("box", "mask"), data_with(), "val")
    assert error.value.labels == {"masks"}
    with pytest.raises(MissingLabelsError, match=r"model=faster_rcnn_fpn, model=keypoint_rcnn_fpn$"):
        require_labels(model_of("box", "mask"), data_with("keypoints"), "train")


@pytest.mark.parametrize(
    ("tasks", "labels", "missing"),
    [
        (("keypoints",), ("masks",), "keypoints"),
        (("rotated",), ("masks", "keypoints"), "rotated boxes"),
        (("rotated_proposals",), (), "rotated boxes"),
        (("semantic",), ("masks",), "semantic labels"),
        (("panoptic", "box"), (), "masks and semantic labels"),
    ],
)
def test_missing_labels_of_other_tasks(tasks, labels, missing):
    with pytest.raises(MissingLabelsError, match=f"needs {missing}, but data.train has none"):
        require_labels(model_of(*tasks), data_with(*labels), "train")


def test_panoptic_labels_are_needed_for_evaluation_only():
    model, dataset = model_of("panoptic"), data_with("masks", "semantic")
    require_labels(model, dataset, "train")
    with pytest.raises(MissingLabelsError, match="panoptic labels"):
        require_labels(model, dataset, "val")


def test_data_learn_what_the_model_needs():
    for labels in (("masks", "keypoints"), (None,)):
        dataset = data_with(*labels)
        require_labels(model_of("box", "mask"), dataset, "train")
        require_labels(model_of("box"), dataset, "train")
        assert dataset.required == [{"masks"}, frozenset()]
