"""``python -m src.weights``: its subcommands, and errors in one line."""

import json
import pickle

import numpy as np
import pytest
import torch

import hydet
from hydet.cli import weights
from hydet.engine import load_checkpoint
from hydet.interop import locations, recipes

OVERRIDES = ["model=retinanet", "backbone=r18_slim", "data.class_names=[ellipse,rectangle,triangle]"]


@pytest.fixture
def run(capsys):
    """Return a function that runs the command, which must succeed, and returns what it printed."""

    def run(*arguments):
        capsys.readouterr()
        status = weights.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def fails(capsys):
    """Return a function that runs the command, which must fail, and returns its line."""

    def fails(*arguments):
        capsys.readouterr()
        assert weights.main([str(argument) for argument in arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error.removeprefix("error: ").rstrip()

    return fails


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(hydet.instantiate(hydet.compose(*OVERRIDES).model).state_dict(), path)
    return path


def test_list_prints_every_recipe(run):
    out = run("list")
    assert all(name in out for name in recipes()) and f"{len(recipes())} recipes" in out


@pytest.mark.parametrize("pattern", ["Keypoints", "coco-key", "*keypoint*3x"])
def test_list_prints_matching_recipes_with_their_numbers(run, pattern):
    out = run("list", pattern)
    assert "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x" in out and "retinanet" not in out
    assert "keypoint AP" in out and "65.5" in out and "mask AP" not in out


def test_download_prints_the_path(run, web, tmp_path):
    web.files["/a.pth"] = b"a"
    path = run("download", f"{web.url}/a.pth").strip()
    assert path.startswith(str(tmp_path / "cache")) and path.endswith("a.pth")


def test_a_failed_download_is_one_line(fails, web):
    line = fails("download", f"{web.url}/a.pth")
    assert "the server answered 404 (Not Found); a copy from elsewhere can be saved as" in line


def test_show_prints_modules_and_says_how_to_convert(run, file):
    out = run("show", file, "--depth", 2)
    assert f"{file}: state dict" in out and "head.cls_score" in out and "27x" in out
    assert "model: not known; `convert` takes it as model=... backbone=..." in out


def test_convert_writes_a_checkpoint_that_evaluate_and_predict_accept(run, file, tmp_path, command):
    folder = tmp_path / "checkpoint"
    out = run(
        "convert",
        file,
        folder,
        *OVERRIDES,
        "data.val.num_images=2",
        "data.val.image_size=[64,64]",
        "num_workers=0",
    )
    assert (
        "loaded" in out
        and "3 classes: ellipse, rectangle, triangle" in out
        and f"checkpoint: {folder}" in out
    )
    command("evaluate", f"checkpoint={folder}", f"output_dir={tmp_path}/evaluated", "device=cpu")
    assert "box/AP" in json.loads((tmp_path / "evaluated" / "metrics.json").read_text(encoding="utf-8"))
    assert "hydet checkpoint" in run("show", folder) and "model: RetinaNet" in run("show", folder)


def test_init_from_recipe_starts_from_the_weights_of_the_published_recipe(
    web, tmp_path, monkeypatch, command, shapes_overrides
):
    address = "/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    array = np.full((32, 3, 7, 7), 0.25, dtype=np.float32)
    content = {"model": {"stem.conv1.weight": array}, "__author__": "test", "matching_heuristics": True}
    web.files[address] = pickle.dumps(content, protocol=2)
    monkeypatch.setattr(locations, "DETECTRON2", f"{web.url}/detectron2/")
    overrides = ["experiment=COCO-Detection/retinanet_R_50_FPN_1x", "data=shapes", *shapes_overrides]
    overrides += [
        "preset=none",
        "trainer.max_steps=1",
        "size=slim",
        "augment=none",
        f"output_dir={tmp_path}/run",
    ]
    out = command("train", *overrides, "init_from=recipe")
    assert "loaded 1 tensors from" in out and "R-50.pkl" in out and "training from scratch" not in out
    config = load_checkpoint(tmp_path / "run").config
    assert config.init_from == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    command("train", *overrides, "init_from=recipe", "resume=auto")


def test_frozen_parts_with_random_weights_are_announced(command, tmp_path, shapes_overrides):
    overrides = [
        *shapes_overrides,
        "model=retinanet",
        "norm=FrozenBN",
        "trainer.max_steps=1",
        "evaluation.pictures=0",
    ]
    out = command("train", *overrides, f"output_dir={tmp_path}/run")
    assert "training from scratch: 20 frozen norms keep their random weights, since init_from is null" in out


def test_errors_are_one_line(fails, file, tmp_path):
    assert "invalid choice: 'lst'" in fails("lst")
    assert "required: SOURCE" in fails("download")
    assert "no published recipe matches 'zzz'" in fails("list", "zzz")
    assert "--depth must be at least 1, got 0" in fails("show", file, "--depth", 0)
    assert "nowhere.pth: no such file" in fails("show", "nowhere.pth")
    assert "does not say which model its weights belong to" in fails("convert", file, tmp_path / "out")
    assert "modl" in fails("convert", file, tmp_path / "out", "modl=retinanet")


def test_tracebacks_on_request(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(FileNotFoundError):
        weights.main(["show", "nowhere.pth"])


def test_help_ends_without_an_error(run):
    assert "list retinanet" in run("--help") and "--sha256" in run("download", "--help")
