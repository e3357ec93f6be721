"""Test-time augmentation with the settings of ``conf/tta``."""

import pytest
import torch

import hydet
from hydet.config import ConfigError
from hydet.data import InputMapper, ResizeShortestEdge
from hydet.runs.build import build_dataset, build_mapper
from hydet.runs.open_checkpoint import open_checkpoint
from hydet.runs.tta import add_tta, read_tta


@pytest.fixture(scope="module")
def detector(tiny_checkpoint):
    return open_checkpoint(tiny_checkpoint, device="cpu")


def test_settings_are_an_option_or_replace_those_of_the_default():
    assert list(read_tta("flip").scales) == [1.0] and len(read_tta("default").scales) == 9
    settings = read_tta({"min_sizes": [20, 30], "flip": False})
    assert list(settings.min_sizes) == [20, 30] and not settings.flip and settings.batch_size == 3
    with pytest.raises(ConfigError, match="tta has no 'sizes', only scales, min_sizes"):
        read_tta({"sizes": [20]})
    with pytest.raises(ConfigError, match=r"tta\.batch_size must be"):
        read_tta({"batch_size": 0})
    with pytest.raises(ConfigError, match="mirror"):
        read_tta("mirror")


def test_sizes_are_those_of_the_resizing_or_of_the_first_image(detector):
    tta = read_tta({"scales": [1.0, 2.0]})
    mapper = build_mapper(detector.config, detector.model, training=False, labeled=False)
    dataset = build_dataset(detector.config, "val")
    model, tta_mapper = add_tta(
        tta, detector.model, mapper, detector.metadata, first_record=lambda: dataset[0]
    )
    assert tta_mapper.min_sizes == (32, 64) and tta_mapper.flip and tta_mapper.max_size == 160
    assert model.model is detector.model
    resized = InputMapper(training=False, mask_format=None, transforms=ResizeShortestEdge(short=50))
    _, tta_mapper = add_tta(tta, detector.model, resized, detector.metadata)
    assert tta_mapper.min_sizes == (50, 100) and tta_mapper.max_size == 250
    with pytest.raises(ConfigError, match="min_sizes and max_size are needed"):
        add_tta(tta, detector.model, mapper, detector.metadata)
    with pytest.raises(ConfigError, match="Linear does not implement"):
        add_tta(tta, torch.nn.Linear(1, 1), mapper, detector.metadata)


def test_prediction_with_one_plain_size_equals_prediction(tiny_checkpoint):
    detector = hydet.load(tiny_checkpoint, device="cpu", inference="exact", model={"test_score_thresh": 0.0})
    image = torch.randint(0, 256, (3, 32, 40), dtype=torch.uint8)
    settings = {"min_sizes": [32], "max_size": 100, "flip": False}
    expected, result = detector.predict(image)[0], detector.predict(image, tta=settings)[0]
    assert len(result) == len(expected) > 0
    torch.testing.assert_close(result.boxes, expected.boxes)
    with pytest.raises(ConfigError, match="exclude each other"):
        detector.predict(image, tta="flip", tile=32)
