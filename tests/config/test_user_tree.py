"""Parts and configs of users, outside of hydet, found in every supported way.

The user's files are those of ``examples/own_parts``, copied to a folder that only ``PYTHONPATH`` names.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hydet
from hydet.cli import evaluate, predict, train
from hydet.data import InputMapper, ShapesDataset
from hydet.engine import load_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_parts"
COMMANDS = {"train": train.main, "evaluate": evaluate.main, "predict": predict.main}
TINY = [
    "trainer.max_steps=2",
    "batch_size=2",
    "num_workers=0",
    "logger=console",
    "evaluation.pictures=1",
    "data.train.num_images=4",
    "data.val.num_images=2",
    "data.image_size=[64,64]",
]
EXPERIMENTS = {
    "box_head_and_backbone": ["experiment=gated_strips"],
    "meta_architecture": ["model=center_detector"],
    "plain_module": ["model=one_box_detector"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return the user's folder: ``my_detectors`` can be imported, ``my_conf`` is not on the search path."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("my_detectors", "my_conf"):
        shutil.copytree(EXAMPLE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [n for n in sys.modules if n.split(".")[0] in ("my_detectors", "my_conf")]:
        del sys.modules[name]


@pytest.fixture
def run(capfd):
    """Return a function that runs a command and returns exit status, stdout and stderr."""

    def run(name, *arguments):
        capfd.readouterr()
        status = COMMANDS[name]([str(a) for a in arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(home, tmp_path_factory):
    """Train each of ``EXPERIMENTS`` and return the folder of their runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, choice in EXPERIMENTS.items():
        assert (
            train.main(["--config-dir", f"{home}/my_conf", *choice, *TINY, f"output_dir={folder / name}"])
            == 0
        )
    return folder


def test_parts_are_built_from_the_users_package(home):
    import my_detectors

    assert Path(my_detectors.__file__).is_relative_to(home)
    model = hydet.instantiate(hydet.compose("experiment=gated_strips", config_dir=home / "my_conf").model)
    assert type(model.roi_heads.box_head) is my_detectors.GatedBoxHead
    assert type(model.backbone.bottom_up) is my_detectors.StripNet
    whole = hydet.instantiate(hydet.compose("model=center_detector", config_dir=home / "my_conf").model)
    assert type(whole) is my_detectors.CenterDetector


@pytest.mark.parametrize("model", ["mask_rcnn_fpn", "retinanet"])
def test_backbone_of_the_user_fits_models_of_hydet(model, home):
    cfg = hydet.compose(f"model={model}", "backbone=strip_net", config_dir=home / "my_conf")
    with torch.device("meta"):
        assert type(hydet.instantiate(cfg.model).backbone.bottom_up).__name__ == "StripNet"


@pytest.mark.parametrize("backbone", ["r50", "swin_t"])
def test_backbones_of_hydet_fit_the_model_of_the_user(backbone, home):
    cfg = hydet.compose(
        "model=center_detector", f"backbone={backbone}", "size=standard", config_dir=home / "my_conf"
    )
    with torch.device("meta"):
        model = hydet.instantiate(cfg.model)
    assert model.backbone.output_shape()["p3"].channels == 256


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_run_writes_metrics_checkpoint_and_images(name, trained):
    folder = trained / name
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert "box/AP" in metrics
    assert ("val_loss/total" in metrics) == (name != "plain_module")  # computes losses in training mode only
    assert load_checkpoint(folder).step == 2
    assert list((folder / "pictures").glob("*.png"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_checkpoint_is_evaluated_and_predicts_if_its_package_is_allowed(name, trained, run, tmp_path):
    checkpoint, allow = f"checkpoint={trained / name}", "allow=[my_detectors]"
    status, _, err = run("evaluate", checkpoint, allow, f"output_dir={tmp_path}/evaluation")
    assert status == 0, err
    again = json.loads((tmp_path / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert (
        again["box/AP"] == json.loads((trained / name / "metrics.json").read_text(encoding="utf-8"))["box/AP"]
    )
    images = trained / name / "pictures"
    status, _, err = run("predict", checkpoint, allow, f"input={images}", f"output_dir={tmp_path}/prediction")
    assert status == 0, err
    assert (tmp_path / "prediction" / "results.json").exists()
    assert len(list((tmp_path / "prediction" / "pictures").rglob("*.png"))) == len(
        list(images.rglob("*.png"))
    )


@pytest.mark.parametrize(
    ("name", "target"), [("plain_module", "OneBoxDetector"), ("box_head_and_backbone", "StripNet")]
)
def test_checkpoint_with_classes_that_are_not_allowed_is_refused_with_the_remedy(
    name, target, trained, run, tmp_path
):
    status, _, err = run("evaluate", f"checkpoint={trained / name}", f"output_dir={tmp_path}")
    (line,) = err.strip().splitlines()
    assert status == 1
    assert line.startswith("error: ") and f"my_detectors.{target}" in line and "allow=[my_detectors]" in line


@pytest.mark.parametrize(
    "how", ["--config-dir={0}", "hydra.searchpath=[file://{0}]", "hydra.searchpath=[pkg://my_conf]"]
)
def test_command_line_finds_the_tree(how, home, run):
    status, out, err = run("train", how.format(home / "my_conf"), "model=center_detector", "-c", "job")
    assert status == 0, err
    assert "_target_: my_detectors.CenterDetector" in out


def test_folder_relative_to_the_working_directory_is_found(home, run, monkeypatch):
    monkeypatch.chdir(home)
    for how in ("--config-dir=my_conf", "hydra.searchpath=[file://my_conf]"):
        status, out, _ = run("train", how, "model=center_detector", "-c", "job")
        assert status == 0 and "_target_: my_detectors.CenterDetector" in out


def test_an_installed_plugin_needs_no_flag(home, tmp_path):
    shutil.copytree(EXAMPLE / "hydra_plugins", tmp_path / "hydra_plugins")
    path = os.pathsep.join([str(home), str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    script = "import hydet; print(hydet.compose('model=center_detector').model._target_)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "my_detectors.CenterDetector"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=center_detecter"], ["model=center_detecter", "nearest: 'center_detector'"]),
        (
            ["model=center_detector", "+model.scroe_threshold=1"],
            ["CenterDetector", "'scroe_threshold'; nearest: 'score_threshold'"],
        ),
        (["backbone=strip_net", "+backbone.out_features=[half]"], ["StripNet has no feature maps ['half']"]),
    ],
)
def test_mistake_in_a_part_of_the_user_prints_one_line(arguments, words, home, run, tmp_path):
    status, _, err = run("train", f"--config-dir={home}/my_conf", *arguments, *TINY, f"output_dir={tmp_path}")
    (line,) = err.strip().splitlines()
    assert status == 1 and line.startswith("error: ")
    for word in words:
        assert word in line


def test_part_whose_package_is_not_on_the_path_is_named(home):
    cfg = hydet.compose(
        "backbone=strip_net", "backbone._target_=my_detectors_of_old.StripNet", config_dir=home / "my_conf"
    )
    with pytest.raises(hydet.ConfigError, match=r"_target_ my_detectors_of_old.StripNet cannot be imported"):
        hydet.instantiate(cfg.model)


def test_parts_of_the_user_learn(home):
    """The gradient reaches every parameter, and the loss falls within a dozen steps on one image."""
    classes = ("ellipse", "rectangle", "triangle")
    data = ShapesDataset(num_images=1, seed=3, image_size=(64, 64), class_names=classes)
    entry = InputMapper(transforms=[], training=True)(data[0])
    for choice in EXPERIMENTS.values():
        model = hydet.instantiate(hydet.compose(*choice, config_dir=home / "my_conf").model).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        history = []
        for _ in range(12):
            loss = sum(model([entry, entry]).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unreached
        assert history[-1] < 0.8 * history[0]
