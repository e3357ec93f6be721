"""A tiny run, tiny COCO files, and the commands called in this process."""

import json
from pathlib import Path

import pytest

from hydet.cli import evaluate, predict, train
from hydet.data import ShapesDataset, write_coco

SMALL = [
    "backbone=r18_slim",
    "trainer.max_steps=2",
    "batch_size=2",
    "num_workers=0",
    "logger=console",
    "evaluation.pictures=1",
]
SHAPES = [
    *SMALL,
    "data.train.num_images=8",
    "data.val.num_images=4",
    "data.train.image_size=[64,64]",
    "data.val.image_size=[64,64]",
]
COCO = ["data=coco_instance", *SMALL, "size=slim", "augment=none", "schedule=constant", "trainer.max_steps=1"]
CLASSES = ("ellipse", "rectangle", "triangle")
COMMANDS = {"train": train.main, "evaluate": evaluate.main, "predict": predict.main}


@pytest.fixture(scope="session")
def shapes_overrides():
    """Two steps on eight generated pictures."""
    return list(SHAPES)


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory):
    """Generated pictures as COCO files: train and val."""
    folder = tmp_path_factory.mktemp("coco")
    for split, count, seed in (("train", 6, 0), ("val", 3, 1)):
        data = ShapesDataset(num_images=count, seed=seed, image_size=(64, 64), class_names=CLASSES)
        write_coco(data, folder, split=split)
    return folder


@pytest.fixture
def coco_overrides():
    """Overrides of one step of training on a folder as ``coco_folder`` has it."""

    def overrides(folder):
        files = [
            f"data.{split}.{key}={folder}/{place}"
            for split in ("train", "val")
            for key, place in (("json", f"annotations/instances_{split}.json"), ("images", split))
        ]
        return [*COCO, *files]

    return overrides


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The output folder of a tiny training run of Mask R-CNN."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train.main([*SHAPES, f"output_dir={folder}"]) == 0
    return folder


@pytest.fixture
def command(tmp_path, capsys):
    """Run a command; gives what it printed. It must succeed."""

    def run(name, *arguments):
        capsys.readouterr()
        status = COMMANDS[name]([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def failure(capsys):
    """Run a command that must fail in the agreed manner; gives its one line."""

    def run(name, *arguments):
        capsys.readouterr()
        status = COMMANDS[name]([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert status != 0
        assert "Traceback" not in printed.err + printed.out
        lines = printed.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), printed.err
        return lines[0]

    return run


@pytest.fixture
def edit_json():
    """Change a JSON file by a function."""

    def edit(file, change):
        content = json.loads(Path(file).read_text())
        change(content)
        Path(file).write_text(json.dumps(content))

    return edit
