"""``train`` on generated images and on COCO files."""

import json

from PIL import Image

from hydet.engine import load_checkpoint


def test_training_writes_metrics_images_and_a_checkpoint(trained):
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert {"box/AP", "mask/AP", "val_loss/total", "seconds"} <= metrics.keys()
    assert metrics["step"] == 2
    checkpoint = load_checkpoint(trained)
    assert checkpoint.step == 2 and checkpoint.class_names == ("ellipse", "rectangle", "triangle")
    assert checkpoint.config.backbone.stem_out_channels == 32
    with Image.open(next((trained / "pictures").glob("*.png"))) as image:
        assert image.width > 64


def test_coco_files_with_class_names_from_the_file(coco_folder, coco_overrides, command, tmp_path):
    out = command(
        "train", *coco_overrides(coco_folder), "data.class_names=null", f"output_dir={tmp_path}/run"
    )
    assert "3 classes" in out
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.class_names == ("ellipse", "rectangle", "triangle")
    assert checkpoint.config.model.roi_heads.num_classes == 3


def test_keypoints_of_coco_files(coco_folder, coco_overrides, command, tmp_path):
    run = tmp_path / "run"
    command(
        "train", *coco_overrides(coco_folder), "data=coco_keypoint", "model=keypoint_rcnn_fpn",
        "data.class_names=null", f"output_dir={run}",
    )  # fmt: skip
    assert load_checkpoint(run).dataset["keypoint_names"][0] == "center"
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert "keypoints/AP" in metrics or "box/AP" in metrics
    file = next((coco_folder / "val").iterdir())
    command("predict", f"checkpoint={run}", f"input={file}", f"output_dir={tmp_path}/predictions")
    results = json.loads((tmp_path / "predictions" / "results.json").read_text(encoding="utf-8"))
    assert all(len(r["keypoints"]) == 15 for r in results)
