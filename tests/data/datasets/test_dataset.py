import pickle

import numpy as np
import pytest
import torch

from hydet.data import (
    BaseDataset,
    CocoDataset,
    DataError,
    DataReport,
    DetectionDataset,
    Metadata,
    Record,
    ShapesDataset,
    as_detection_dataset,
)


def make_record(index, *, width=8, classes=(0, 1, 1)):
    count = len(classes)
    return Record(
        image=torch.zeros(3, 4, width, dtype=torch.uint8),
        image_id=10 * index,
        file_name=f"{index}.png",
        height=4,
        width=width,
        boxes=torch.tensor([[0.0, 0, 2, 3]]).repeat(count, 1),
        classes=torch.tensor(classes, dtype=torch.int64),
        iscrowd=torch.zeros(count, dtype=torch.bool),
        annotation_ids=torch.arange(count),
    )


class MinimalDataset:
    """Define only what a user has to define."""

    metadata = Metadata(name="minimal", thing_classes=("cat", "dog"), thing_ids=(3, 9))

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 2:
            raise DataError("2.png: is broken")
        return make_record(index, width=8 if index == 0 else 2)


class SkippingDataset(MinimalDataset, BaseDataset):
    policy = "drop"


def test_minimal_dataset_gets_the_whole_interface():
    dataset = as_detection_dataset(MinimalDataset())
    assert dataset.metadata is MinimalDataset.metadata and len(dataset) == 3
    assert dataset[1].image_id == 10
    assert dataset.policy == "raise" and dataset.keypoint_offset == 0 and not dataset.has_proposals
    assert isinstance(dataset.report(), DataReport) and dataset.report() is dataset.report()
    assert as_detection_dataset(dataset) is dataset
    assert len(pickle.loads(pickle.dumps(dataset))) == 3


def test_adapter_requires_readable_images_under_policy_raise():
    dataset = as_detection_dataset(MinimalDataset())
    with (
        pytest.warns(UserWarning, match="MinimalDataset does not define .* reading all 3 images"),
        pytest.raises(DataError, match=r"2\.png"),
    ):
        _ = dataset.image_ids


def test_defaults_come_from_the_records():
    dataset = SkippingDataset()
    with pytest.warns(UserWarning, match="SkippingDataset does not define"):
        assert dataset.image_ids.tolist() == [0, 10, -1]
    assert dataset.aspect_ratios.tolist() == [2, 0.5, 1]
    assert dataset.classes_of_images() == [[0, 1], [0, 1], []]
    assert [image["id"] for image in dataset.to_coco()["images"]] == [0, 10]


def test_check_reports_unreadable_records():
    dataset = SkippingDataset()
    report = dataset.check()
    assert report is dataset.report() and report.count("unreadable_image") == 1
    assert "2.png" in str(report) and report.source == "minimal"


def test_adapter_uses_the_members_that_an_object_has():
    class WithSome(MinimalDataset):
        policy = "drop"
        keypoint_offset = 0.5
        has_proposals = True
        aspect_ratios = (2.0, 0.5, 1.0)
        image_ids = (7, 8, 9)

        def classes_of_images(self):
            return [[0], [1], []]

        def to_coco(self):
            return {"images": []}

    dataset = as_detection_dataset(WithSome())
    assert dataset.policy == "drop" and dataset.keypoint_offset == 0.5 and dataset.has_proposals
    assert isinstance(dataset.aspect_ratios, np.ndarray) and dataset.aspect_ratios.tolist() == [2, 0.5, 1]
    assert dataset.image_ids.tolist() == [7, 8, 9]
    assert dataset.classes_of_images() == [[0], [1], []]
    assert dataset.to_coco() == {"images": []}


def test_list_of_records_is_a_dataset():
    dataset = as_detection_dataset([make_record(0), make_record(1)])
    assert dataset.metadata == Metadata()
    with pytest.warns(UserWarning, match="reading all 2 images"):
        assert dataset.image_ids.tolist() == [0, 10]


def test_items_of_another_type_are_refused():
    with (
        pytest.warns(UserWarning, match="reading all"),
        pytest.raises(TypeError, match=r"item 0 must be a hydet\.data\.Record, got int"),
    ):
        _ = as_detection_dataset([1, 2]).image_ids


def test_own_datasets_implement_the_interface(coco_folder, annotation):
    for dataset in (ShapesDataset(num_images=2), CocoDataset(**coco_folder([annotation()]))):
        assert isinstance(dataset, DetectionDataset) and as_detection_dataset(dataset) is dataset


def test_base_class_requires_records():
    with pytest.raises(TypeError, match="abstract"):
        BaseDataset()
