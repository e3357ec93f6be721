"""Every task through the commands: training, evaluation by the metrics of the task, result files and drawings."""

import json

import numpy as np
import pytest
from PIL import Image

from hydet.data import ProposalFile, ShapesDataset

KINDS = {
    "rotated_faster_rcnn_fpn": (["data=shapes_rotated"], "rotated/AP", ["rotated/AP50"]),
    "panoptic_fpn": ([], "panoptic/PQ", ["box/AP", "mask/AP", "semantic/mIoU", "panoptic/SQ_th"]),
    "semantic_fpn": ([], "semantic/mIoU", ["semantic/pACC"]),
    "rpn_fpn": ([], "proposals/AR100", ["proposals/AR1000"]),
    "retinanet": ([], "box/AP", ["box/AP75"]),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shapes_overrides):
    """Return a function from a model option to the output folder of its tiny run, which is trained once."""
    from hydet.cli import train

    folders = {}

    def run(model, *more):
        if model not in folders:
            folder = tmp_path_factory.mktemp(model) / "run"
            overrides = [*shapes_overrides, f"model={model}", *KINDS.get(model, [[]])[0], *more]
            assert train.main([*overrides, f"output_dir={folder}"]) == 0
            folders[model] = folder
        return folders[model]

    return run


@pytest.mark.parametrize("model", KINDS)
def test_metrics_of_a_model_are_those_of_its_tasks(model, runs):
    _, metric, more = KINDS[model]
    metrics = json.loads((runs(model) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["metric"] == metric
    assert {metric, "val_loss/total", *more} <= metrics.keys()
    assert not {"box/AP"} & metrics.keys() or model in ("panoptic_fpn", "retinanet")
    assert (runs(model) / "checkpoints" / "best").exists()
    with Image.open(next((runs(model) / "pictures").glob("*.png"))) as image:
        assert image.width > 64


def test_evaluation_of_panoptic_segmentation_writes_maps_that_agree_with_their_json(runs, command, tmp_path):
    run = runs("panoptic_fpn")
    command("evaluate", f"checkpoint={run}", f"output_dir={tmp_path}")
    again = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    first = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for name in ("panoptic/PQ", "semantic/mIoU", "mask/AP"):
        assert again[name] == pytest.approx(first[name], abs=1e-9)
    maps = json.loads((tmp_path / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
    assert len(maps) == 4
    for entry in maps:
        colors = np.asarray(Image.open(tmp_path / "panoptic" / entry["file_name"])).astype(int)
        ids, areas = np.unique(colors[..., 0] + 256 * colors[..., 1], return_counts=True)
        written = {s["id"]: s["area"] for s in entry["segments_info"]}
        assert written == {i: a for i, a in zip(ids.tolist(), areas.tolist(), strict=True) if i > 0}


def test_prediction_of_semantic_labels(runs, coco_folder, command, tmp_path):
    out = command(
        "predict",
        f"checkpoint={runs('semantic_fpn')}",
        f"input={coco_folder}/val",
        f"output_dir={tmp_path}",
    )
    assert "3 label maps" in out and not (tmp_path / "results.json").exists()
    for file in (tmp_path / "semantic").iterdir():
        labels = np.asarray(Image.open(file))
        assert labels.shape == (64, 64) and labels.max() < 5
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_proposals_of_one_model_train_another(runs, shapes_overrides, command, failure, tmp_path):
    files = {}
    for split in ("train", "val"):
        out = tmp_path / split
        command("evaluate", f"checkpoint={runs('rpn_fpn')}", f"split={split}", f"output_dir={out}")
        files[split] = out / "proposals.npz"
    written = ProposalFile.read(files["train"])
    dataset = ShapesDataset(num_images=8, image_size=(64, 64))
    assert sorted(written.image_ids.tolist()) == sorted(dataset.image_ids.tolist())

    fast = [*shapes_overrides, "model=fast_rcnn_fpn"]
    assert "proposals.train=FILE" in failure(
        "train", *fast, "data.num_proposals=0", f"output_dir={tmp_path}/none"
    )
    given = [f"proposals.{split}={file}" for split, file in files.items()]
    command("train", *fast, *given, f"output_dir={tmp_path}/run")
    assert "box/AP" in json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    command("evaluate", f"checkpoint={tmp_path}/run", f"output_dir={tmp_path}/again")
    image = next((tmp_path / "run" / "pictures").glob("*.png"))
    line = failure("predict", f"checkpoint={tmp_path}/run", f"input={image}", f"output_dir={tmp_path}/p")
    assert "proposals that come with the data" in line


@pytest.mark.parametrize("model", ["retinanet", "panoptic_fpn", "semantic_fpn", "rpn_fpn"])
def test_evaluation_with_test_time_augmentation(model, runs, command, tmp_path):
    out = command(
        "evaluate",
        f"checkpoint={runs(model)}",
        "tta=default",
        "tta.scales=[1.0,1.5]",
        f"output_dir={tmp_path}",
    )
    assert "[64, 96], each also mirrored" in out
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert KINDS[model][1] in metrics and "val_loss/total" not in metrics


def test_repeat_factor_sampling_and_images_of_training_steps(shapes_overrides, command, tmp_path):
    command(
        "train", *shapes_overrides, "model=retinanet", "sampler=repeat_factor", "sampler.threshold=0.5",
        "vis_period=1", f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert list((tmp_path / "run" / "pictures" / "training").glob("*.png"))


def test_data_without_the_labels_of_the_model_are_refused(coco_folder, coco_overrides, failure, tmp_path):
    line = failure(
        "train", *coco_overrides(coco_folder), "model=semantic_fpn", "data.class_names=null",
        "+data.stuff_names=[a,b]", f"output_dir={tmp_path}",
    )  # fmt: skip
    assert "semantic labels" in line
