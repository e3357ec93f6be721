"""A tiny checkpoint that is built without training, and copies of it for tests to change."""

import shutil

import pytest
import torch
import yaml

import hydet
from hydet.engine import save_checkpoint
from hydet.runs.build import plain

TINY = [
    "model=retinanet", "data.val.num_images=1", "data.val.image_size=[32,32]", "num_workers=0", "evaluation.batch_size=1",
    "evaluation.with_losses=false",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Return a checkpoint folder with random weights; tests must not change it."""
    torch.manual_seed(0)
    config = hydet.compose(*TINY)
    model = hydet.instantiate(config.model)
    metadata = hydet.instantiate(config.data.val).metadata.to_dict()
    folder = tmp_path_factory.mktemp("tiny") / "step_00000001"
    save_checkpoint(
        folder,
        weights=model.state_dict(),
        training_state={"step": 1},
        config=plain(config),
        metadata={"step": 1, "max_steps": 1, "metrics": {}, "dataset": metadata},
    )
    return folder


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    """Return a copy of the tiny checkpoint that a test may spoil."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


@pytest.fixture
def edit_config(checkpoint):
    """Return a function that changes the config of ``checkpoint`` by a function."""

    def edit(change):
        file = checkpoint / "config.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        change(config)
        file.write_text(yaml.safe_dump(config), encoding="utf-8")

    return edit


@pytest.fixture
def make_result():
    """Return a function that makes the result of an image of 40 x 60 pixels with two objects, and fields of its own."""
    from hydet.data import Metadata
    from hydet.runs.result import Result
    from hydet.structures import Boxes, Instances

    metadata = Metadata(thing_classes=("cat", "dog", "cow"), keypoint_names=("nose", "tail"))

    def make(*, name="photos/a.jpg", **fields):
        boxes = Boxes(torch.tensor([[10.0, 5.0, 30.0, 25.0], [20.0, 10.0, 59.0, 39.0]]))
        defaults = {
            "pred_boxes": boxes,
            "scores": torch.tensor([0.9, 0.4]),
            "pred_classes": torch.tensor([1, 0]),
        }
        image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
        return Result(
            image=image,
            output={"instances": Instances((40, 60), **{**defaults, **fields})},
            metadata=metadata,
            name=name,
            index=2,
        )

    return make
