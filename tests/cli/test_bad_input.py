"""Errors of users: each ends in one line that names it and a nonzero status, and damages nothing."""

import hashlib
import os
import shutil

import pytest

from hydet.engine import load_checkpoint

GONE = "/nowhere/at/all"


@pytest.fixture
def coco(coco_folder, tmp_path):
    """Return a copy of the COCO folder that a test may spoil."""
    return shutil.copytree(coco_folder, tmp_path / "coco")


@pytest.fixture
def checkpoint(trained, tmp_path):
    """Return a copy of the checkpoint that a test may spoil."""
    return shutil.copytree(load_checkpoint(trained).path, tmp_path / "checkpoint")


def train_json(folder):
    return folder / "annotations" / "instances_train.json"


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def fingerprint(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".hydra" not in p.parts and p.suffix != ".log"
    }


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("train", "optimizer.lrr=0.1", ["optimizer.lrr", "nearest: 'lr'"]),
        ("train", "optimizr.lr=0.1", ["optimizr.lr", "nearest: 'optimizer'"]),
        ("train", "backbone=r51", ["backbone=r51", "nearest: 'r50'"]),
        ("train", "optimizer.lr=[", ["optimizer.lr=["]),
        ("train", "optimizer.lr=abc", ["optimizer.lr must be a number", "'abc'"]),
        ("train", "logger=null", ["logger=null", "~logger"]),
        ("train", "+model.backbone.num_outs=5", ["model.backbone", "num_outs"]),
        ("train", "batch_size=0", ["batch_size"]),
        ("train", "trainer.max_steps=-1", ["max_steps", "-1"]),
        ("train", "num_classes=7", ["num_classes", "7", "ellipse"]),
        ("train", "data.val.class_names=[ellipse,rectangle]", ["data.val", "(2) ellipse, rectangle"]),
        ("evaluate", "checkpont=x", ["checkpont", "nearest: 'checkpoint'"]),
        ("evaluate", "data=shape", ["data=shape", "nearest: 'shapes'"]),
        ("evaluate", "device=cpu", ["checkpoint is not set"]),
        ("predict", "checkpoint=x", ["input is not set"]),
    ],
)
def test_overrides(name, override, words, shapes_overrides, failure, tmp_path):
    overrides = shapes_overrides if name == "train" else []
    line = failure(name, *overrides, override, f"output_dir={tmp_path}/out")
    for word in words:
        assert word in line


def test_missing_files_of_a_dataset(coco, coco_overrides, failure, tmp_path):
    common = [*coco_overrides(coco), "data.class_names=null", f"output_dir={tmp_path}/out"]
    assert GONE in failure("train", *common, f"data.train.json={GONE}")
    assert GONE in failure("train", *common, f"data.train.images={GONE}")
    assert GONE in failure("train", *common, f"data.val.json={GONE}")
    assert str(train_json(coco)) in failure("train", *common, f"data.val.images={train_json(coco)}")
    train_json(coco).write_text('{"images": [', encoding="utf-8")
    line = failure("train", *common)
    assert str(train_json(coco)) in line and "JSON" in line
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_missing_coco_root(failure, tmp_path):
    assert GONE in failure("train", "data=coco_instance", f"data.root={GONE}", f"output_dir={tmp_path}")


def test_a_category_that_the_config_lacks(coco, coco_overrides, failure, tmp_path):
    line = failure(
        "train", *coco_overrides(coco), "data.class_names=[ellipse,rectangle]", f"output_dir={tmp_path}/out"
    )
    assert str(train_json(coco)) in line and "'triangle'" in line
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_keypoints_of_another_number(coco, coco_overrides, failure, tmp_path):
    line = failure(
        "train", *coco_overrides(coco), "model=keypoint_rcnn_fpn",
        "data.class_names=[ellipse,rectangle,triangle]", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert "data.keypoint_names has 17" in line and "(5) center" in line


def test_truncated_image_is_replaced_or_stops_training(coco, coco_overrides, command, failure, tmp_path):
    file = sorted((coco / "train").iterdir())[1]
    truncate(file)
    common = [*coco_overrides(coco), "data.class_names=null", "model=faster_rcnn_fpn", "trainer.max_steps=3"]
    line = failure("train", *common, "data.policy=raise", f"output_dir={tmp_path}/raise")
    assert str(file) in line
    with pytest.warns(UserWarning, match=file.name):
        out = command("train", *common, "data.policy=drop", f"output_dir={tmp_path}/drop")
    assert "could not be read" in out
    assert load_checkpoint(tmp_path / "drop").step == 3


def test_boxes_outside_the_image(coco, coco_overrides, command, failure, edit_json, tmp_path):
    def spoil(content):
        content["annotations"][0]["bbox"] = [1000, 1000, 10, 10]
        spoil.id = content["annotations"][0]["id"]

    edit_json(train_json(coco), spoil)
    common = [*coco_overrides(coco), "data.class_names=null", "model=faster_rcnn_fpn"]
    line = failure("train", *common, "data.policy=raise", f"output_dir={tmp_path}/raise")
    assert f"annotation {spoil.id}" in line and str(train_json(coco)) in line
    out = command("train", *common, "data.policy=drop", f"output_dir={tmp_path}/drop")
    assert "1 x box outside, dropped" in out and f"annotation {spoil.id}" in out


def test_missing_checkpoints(shapes_overrides, failure, tmp_path, coco_folder):
    out = f"output_dir={tmp_path}/out"
    assert GONE in failure("evaluate", f"checkpoint={GONE}", out)
    assert GONE in failure("predict", f"checkpoint={GONE}", f"input={coco_folder}/val", out)
    assert str(tmp_path) in failure("evaluate", f"checkpoint={tmp_path}", out)
    assert GONE in failure("train", *shapes_overrides, f"init_from={GONE}", out)
    assert GONE in failure("train", *shapes_overrides, f"resume={GONE}", out)


@pytest.mark.parametrize("name", ["model.safetensors", "metadata.json", "config.yaml"])
def test_damaged_checkpoint(name, checkpoint, coco_folder, failure, tmp_path):
    if name == "config.yaml":
        (checkpoint / name).write_text("model: [unclosed\n  x: {", encoding="utf-8")
    else:
        truncate(checkpoint / name)
    before = fingerprint(checkpoint)
    out = f"output_dir={tmp_path}/out"
    for line in (
        failure("evaluate", f"checkpoint={checkpoint}", out),
        failure("predict", f"checkpoint={checkpoint}", f"input={coco_folder}/val", out),
    ):
        assert str(checkpoint) in line
    assert fingerprint(checkpoint) == before
    assert not (tmp_path / "out" / "results.json").exists()


def test_damaged_training_state(checkpoint, shapes_overrides, failure, tmp_path):
    state = checkpoint / "training_state.pt"
    content = bytearray(state.read_bytes())
    content[:4000] = bytes(4000)  # same size, so that only reading it shows it
    content[-4000:] = bytes(4000)
    state.write_bytes(content)
    line = failure("train", *shapes_overrides, f"resume={checkpoint}", f"output_dir={tmp_path}/out")
    assert str(state) in line


def test_checkpoint_whose_parts_disagree_about_the_classes(checkpoint, edit_json, failure, tmp_path):
    def spoil(content):
        content["dataset"]["thing_classes"] = ["cat", "dog"]
        content["dataset"] |= {"thing_ids": [1, 2], "palette": []}

    edit_json(checkpoint / "metadata.json", spoil)
    line = failure("evaluate", f"checkpoint={checkpoint}", f"output_dir={tmp_path}/out")
    assert str(checkpoint) in line and "3 classes" in line and "(2) cat, dog" in line


def test_checkpoint_whose_weights_have_another_number_of_classes(checkpoint, failure, tmp_path):
    config = checkpoint / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("num_classes: 3", "num_classes: 4"), encoding="utf-8"
    )
    metadata = checkpoint / "metadata.json"
    metadata.write_text(
        metadata.read_text(encoding="utf-8")
        .replace('"triangle"', '"triangle", "star"')
        .replace("3\n", "3, 4\n"),
        encoding="utf-8",
    )
    line = failure("evaluate", f"checkpoint={checkpoint}", f"output_dir={tmp_path}/out")
    assert str(checkpoint) in line and "4" in line


def test_checkpoint_of_other_classes(trained, shapes_overrides, command, failure, tmp_path):
    two = ["data.class_names=[ellipse,rectangle]", f"output_dir={tmp_path}/out"]
    before = fingerprint(trained)
    line = failure("evaluate", f"checkpoint={trained}", "data=shapes", *two)
    assert "(2) ellipse, rectangle" in line and "(3) ellipse, rectangle, triangle" in line
    line = failure("train", *shapes_overrides, *two, f"resume={trained}")
    assert str(trained) in line and "(2) ellipse, rectangle" in line and "(3)" in line
    line = failure("train", *shapes_overrides, two[0], f"output_dir={trained}", "resume=auto")
    assert str(trained) in line and "(3)" in line
    assert fingerprint(trained) == before

    out = command("train", *shapes_overrides, *two, f"init_from={trained}", "trainer.max_steps=1")
    assert (
        "except 2 classes copied by name (ellipse, rectangle; 3 classes in the file, 2 in the model)" in out
    )
    assert "roi_heads.box_predictor.cls_score" in out
    assert load_checkpoint(tmp_path / "out").class_names == ("ellipse", "rectangle")


def test_evaluation_of_a_file_with_another_category(trained, coco, edit_json, failure, tmp_path):
    file = coco / "annotations" / "instances_val.json"

    def add_category(content):
        content["categories"].append({"id": 77, "name": "unicorn"})
        content["annotations"][0]["category_id"] = 77

    edit_json(file, add_category)
    line = failure(
        "evaluate", f"checkpoint={trained}", "data=coco_instance", "data.class_names=null",
        f"data.val.json={file}", f"data.val.images={coco}/val", f"output_dir={tmp_path}/out",
    )  # fmt: skip
    assert str(file) in line and "'unicorn'" in line
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_run_does_not_overwrite_another(trained, shapes_overrides, failure):
    before = fingerprint(trained)
    line = failure("train", *shapes_overrides, f"output_dir={trained}")
    assert str(trained) in line and "resume=auto" in line
    assert fingerprint(trained) == before


def test_output_dir_that_cannot_be_created(trained, shapes_overrides, coco_folder, failure, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    for output_dir in (file, file / "below"):
        assert str(file) in failure("train", *shapes_overrides, f"output_dir={output_dir}")
        assert str(file) in failure("evaluate", f"checkpoint={trained}", f"output_dir={output_dir}")
    line = failure("predict", f"checkpoint={trained}", f"input={coco_folder}/val", f"output_dir={file}")
    assert str(file) in line and file.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_output_dir_without_permission(shapes_overrides, failure, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert str(closed) in failure("train", *shapes_overrides, f"output_dir={closed}/run")


def test_missing_input(trained, failure, tmp_path):
    out = f"output_dir={tmp_path}/out"
    for path in (GONE, f"{tmp_path}/*.jpg"):
        assert path in failure("predict", f"checkpoint={trained}", f"input={path}", out)
    (tmp_path / "empty").mkdir()
    line = failure("predict", f"checkpoint={trained}", f"input={tmp_path}/empty", out)
    assert "no image" in line and str(tmp_path / "empty") in line
    line = failure("predict", f"checkpoint={trained}", f"input={GONE}", "score_threshold=2", out)
    assert "score_threshold" in line


def test_a_truncated_image_does_not_stop_prediction(trained, coco, failure, tmp_path):
    files = sorted((coco / "val").iterdir())
    truncate(files[1])
    out = tmp_path / "out"
    line = failure("predict", f"checkpoint={trained}", f"input={coco}/val", f"output_dir={out}")
    assert str(files[1]) in line and str(files[0]) not in line
    assert sorted(p.name for p in (out / "pictures").iterdir()) == [files[0].name, files[2].name]
    assert (out / "results.json").exists()
    assert not list(out.rglob("*.part"))
