"""Settings of an evaluation: those of the checkpoint with the values of the command line."""

import pytest

import hydet
from hydet.data import Metadata
from hydet.runs.build import build_dataset
from hydet.runs.evaluation_run import evaluation_settings, result_metadata
from hydet.runs.open_checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def detector(tiny_checkpoint):
    return open_checkpoint(tiny_checkpoint, device="cpu")


def settings_of(detector, *overrides):
    return evaluation_settings(hydet.compose("checkpoint=x", *overrides, config_name="evaluate"), detector)


def test_null_keeps_the_settings_of_the_checkpoint(detector):
    assert settings_of(detector) == detector.config


def test_values_of_the_command_line(detector):
    settings = settings_of(
        detector, "batch_size=3", "num_workers=1", "backend=pycocotools", "proposals.val=x.npz"
    )
    assert (settings.evaluation.batch_size, settings.num_workers) == (3, 1)
    assert settings.evaluation.backend == "pycocotools"
    assert (settings.proposals.val, settings.proposals.train) == ("x.npz", None)
    assert detector.config.evaluation.batch_size == 1


def test_evaluators_of_the_command_line_use_the_settings(detector):
    settings = settings_of(detector, "evaluators=default", "backend=pycocotools")
    assert settings.evaluators.instances.backend == "pycocotools"
    assert settings.evaluators.instances.max_detections == 100


def test_data_without_class_names_take_those_of_the_checkpoint(detector):
    settings = settings_of(detector, "data=shapes", "data.class_names=null")
    assert list(settings.data.class_names) == list(detector.metadata.thing_classes)
    assert settings.data.val.class_names == settings.data.class_names
    assert len(build_dataset(settings, "val", metadata=detector.metadata)) > 0


def test_result_files_have_the_ids_of_the_evaluated_data():
    trained = Metadata(
        thing_classes=("a", "b"), thing_ids=(1, 2), stuff_classes=("things", "sky"), stuff_ids=(0, 9)
    )
    evaluated = Metadata(thing_classes=("a", "b"), thing_ids=(30, 7))
    metadata = result_metadata(evaluated, trained)
    assert metadata.thing_ids == (30, 7) and metadata.stuff_ids == (0, 9)
    with_stuff = Metadata(
        thing_classes=("a", "b"), thing_ids=(30, 7), stuff_classes=("things", "sky"), stuff_ids=(0, 4)
    )
    assert result_metadata(with_stuff, trained) is with_stuff
