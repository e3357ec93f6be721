"""Predictions for image files."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from hydet.data import DataError, InputMapper
from hydet.data.images.reading import ImageReader
from hydet.runs.prediction import build_image_reader, predict_images
from hydet.runs.sources import open_source
from hydet.structures import Boxes, Instances, ROIMasks, SemanticScores


def predict_files(model, mapper, files, *, read=None, **options):
    images = open_source(files, read=read or ImageReader())
    return predict_images(model, mapper, images, **options)


class Counting(torch.nn.Module):
    """Returns the mean of each image, and records the batch sizes."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, batched_inputs):
        self.batches.append(len(batched_inputs))
        return [{"sem_seg": entry["image"].float().mean()} for entry in batched_inputs]


@pytest.fixture
def files(coco_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    return [*sorted((coco_folder / "val").iterdir()), broken]


def test_batches_and_files_that_cannot_be_read(files):
    model, failed = Counting(), []
    mapper = InputMapper(training=False, mask_format=None)
    predictions = list(predict_files(model, mapper, files, batch_size=2, failed=failed))
    assert model.batches == [2, 1]
    assert [Path(p.record.file_name) for p in predictions] == files[:3]
    assert [p.record.image_id for p in predictions] == [1, 2, 3]
    for prediction in predictions:
        assert prediction.output["sem_seg"] == prediction.record.image.float().mean()
    assert len(failed) == 1 and "broken.png" in failed[0]


class Unpasted(torch.nn.Module):
    """Returns small masks from ``detect_unpasted``, as models of hydet do."""

    def detect_unpasted(self, batched_inputs, *, with_losses):
        assert not with_losses
        size = (batched_inputs[0]["height"], batched_inputs[0]["width"])
        fields = {"scores": torch.ones(1), "pred_classes": torch.zeros(1, dtype=torch.int64)}
        boxes, masks = Boxes(torch.tensor([[0.0, 0.0, 9.0, 9.0]])), ROIMasks(torch.ones(1, 28, 28))
        instances = Instances(size, pred_boxes=boxes, pred_masks=masks, **fields)
        return {}, [{"instances": instances, "sem_seg": SemanticScores(torch.rand(2, 4, 4), size)}]


def test_masks_and_scores_of_predictions_stay_small(files):
    predictions = list(predict_files(Unpasted(), InputMapper(training=False, mask_format=None), files[:2]))
    assert len(predictions) == 2
    for prediction in predictions:
        assert isinstance(prediction.output["instances"].pred_masks, ROIMasks)
        assert prediction.output["sem_seg"].tensor.shape == (2, 4, 4)


def test_a_broken_file_raises_by_default(files):
    with pytest.raises(DataError, match=r"broken\.png"):
        list(predict_files(Counting(), InputMapper(training=False, mask_format=None), files))


def test_settings_of_the_reader_come_from_the_command_or_the_training_data():
    trained = OmegaConf.create({"data": {"value_range": [0, 4095]}})
    given = OmegaConf.create({"value_range": None, "max_pixels": 1000})
    assert build_image_reader(trained, given) == ImageReader(value_range=[0, 4095], max_pixels=1000)
    given.value_range = "minmax"
    assert build_image_reader(trained, given).value_range == "minmax"
    assert build_image_reader(OmegaConf.create({"data": {}}), OmegaConf.create({})) == ImageReader()


def test_files_are_read_with_the_settings(files):
    failed = []
    mapper = InputMapper(training=False, mask_format=None)
    read = ImageReader(max_pixels=5)
    assert not list(predict_files(Counting(), mapper, files[:1], failed=failed, read=read))
    assert "max_pixels=5" in failed[0]
