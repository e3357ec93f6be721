"""Weights from elsewhere, opened as detectors."""

import dataclasses
from pathlib import PurePath

import pytest
import torch
import torchvision

import hydet
from hydet.config import ConfigError
from hydet.data import DataError
from hydet.interop import ForeignModel, locations, recipe
from hydet.runs import open_weights as module
from hydet.runs.open_weights import open_detector, open_weights
from hydet.runs.weights_summary import summarize_weights

RECIPE = "COCO-Detection/retinanet_R_50_FPN_3x"
SLIM = ["backbone=r18_slim", "size=slim"]


@pytest.fixture(scope="module")
def weights():
    """Return the state dict of the slim model of the recipe."""
    torch.manual_seed(0)
    return hydet.instantiate(hydet.compose(*recipe(RECIPE).overrides, *SLIM).model).state_dict()


@pytest.fixture
def file(weights, tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(weights, path)
    return path


@pytest.fixture
def recipe_file(weights, tmp_path):
    """Write the weights under the file name of the recipe."""
    path = tmp_path / PurePath(recipe(RECIPE).url).name
    torch.save(weights, path)
    return path


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_a_file_of_a_recipe_is_known_by_its_name(recipe_file, weights):
    detector = open_weights(recipe_file, overrides=SLIM, device="cpu")
    assert equal(detector.model.state_dict(), weights) and not detector.model.training
    assert (
        detector.metadata.thing_classes[:2] == ("person", "bicycle") and detector.metadata.num_classes == 80
    )
    assert detector.metadata.thing_ids[-1] == 90 and detector.metadata.keypoint_names == ()
    assert detector.config.data.class_names == list(detector.metadata.thing_classes)
    assert detector.checkpoint is None and detector.origin == str(recipe_file)


def test_the_name_of_a_recipe_downloads_its_file(recipe_file, web, monkeypatch):
    web.files["/" + recipe_file.name] = recipe_file.read_bytes()
    download = locations.download
    monkeypatch.setattr(
        locations, "download", lambda url, path, **_: download(f"{web.url}/{PurePath(url).name}", path)
    )
    detector = open_weights(RECIPE, overrides=SLIM, device="cpu")
    assert detector.origin.startswith(f"{RECIPE} (") and detector.origin.endswith(f"{recipe_file.name})")


def test_the_model_of_the_file_is_built(file, monkeypatch):
    model = ForeignModel((*recipe(RECIPE).overrides, *SLIM), ("a", *(f"b{i}" for i in range(79))))
    read = module.read_foreign
    monkeypatch.setattr(module, "read_foreign", lambda path: dataclasses.replace(read(path), model=model))
    detector = open_detector(file, device="cpu")
    assert detector.metadata.thing_classes[:2] == ("a", "b0")


def test_the_error_without_a_known_model_says_how_to_name_it(file):
    with pytest.raises(DataError) as error:
        open_detector(file)
    assert str(error.value) == (
        f"{file} does not say which model its weights belong to; name it: python -m src.weights convert {file} OUT "
        "model=MODEL backbone=BACKBONE data.class_names=[...], or experiment=RECIPE"
    )


def test_overrides_select_the_model_and_its_classes(file, weights):
    names = [f"c{i}" for i in range(80)]
    overrides = ["model=retinanet", *SLIM, f"data.class_names=[{','.join(names)}]"]
    detector = open_weights(file, overrides=overrides, device="cpu")
    state = detector.model.state_dict()  # with counters of the batch norms of the quick preset
    assert detector.metadata.thing_classes == tuple(names)
    assert equal({name: state[name] for name in weights}, weights)


def test_classes_without_names_are_numbered(file):
    detector = open_weights(file, overrides=["model=retinanet", "num_classes=80", *SLIM], device="cpu")
    assert detector.metadata.thing_classes[::79] == ("class 1", "class 80")


def test_another_model_does_not_fit(file):
    with pytest.raises(
        ValueError, match=r"does not fit the model \(file -> model\).*\(720, 64, 3, 3\) -> \(27, 64, 3, 3\)"
    ):
        open_weights(file, overrides=["model=retinanet", *SLIM], device="cpu")


def test_changes_apply_to_the_model(recipe_file):
    changes = {"model": {"test_score_thresh": 0.3}}
    detector = open_weights(recipe_file, overrides=SLIM, device="cpu", changes=changes)
    assert detector.config.model.test_score_thresh == 0.3
    with pytest.raises(
        ConfigError, match="is outside of what the section 'model' of a stored config may build"
    ):
        open_weights(recipe_file, overrides=SLIM, changes={"model": {"backbone": {"_target_": "os.system"}}})


def test_a_checkpoint_folder_is_opened_as_before(tiny_checkpoint):
    detector = open_detector(tiny_checkpoint, device="cpu")
    assert detector.checkpoint is not None and detector.origin == f"{tiny_checkpoint} (step 1)"


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"weights nowhere\.pth: no such file"):
        open_weights("nowhere.pth")


def test_a_classifier_is_no_detector(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(
        DataError, match=r"holds a backbone, not a detector; .* backbone=r18 norm=BN input_format=RGB"
    ):
        open_weights(path)
    summary = summarize_weights(path)
    assert summary.model is None and summary.overrides[0] == "backbone=r18" and summary.num_classes is None
