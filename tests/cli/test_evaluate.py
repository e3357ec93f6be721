"""``evaluate`` on the data of the checkpoint and on other data."""

import json

import pytest


def test_evaluation_needs_only_the_checkpoint(trained, command, tmp_path):
    out = command("evaluate", f"checkpoint={trained}", f"output_dir={tmp_path}")
    assert "rectangle" in out
    again = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    first = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert again["box/AP"] == pytest.approx(first["box/AP"], abs=1e-9)
    assert again["mask/AP"] == pytest.approx(first["mask/AP"], abs=1e-9)
    assert again["val_loss/total"] == pytest.approx(first["val_loss/total"], rel=0.2)  # it samples
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))


def test_evaluation_on_other_data(trained, coco_folder, command, tmp_path):
    command(
        "evaluate",
        f"checkpoint={trained}",
        "data=shapes",
        "data.val.num_images=2",
        "evaluators=default",
        "evaluators.instances.boundary=true",
        f"output_dir={tmp_path}/a",
    )
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= metrics["boundary/AP"] <= metrics["mask/AP"]
    content = json.loads((coco_folder / "annotations/instances_val.json").read_text(encoding="utf-8"))
    for entry in content["categories"]:
        entry["id"] += 40
    for annotation in content["annotations"]:
        annotation["category_id"] += 40
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    out = command(
        "evaluate", f"checkpoint={trained}", "data=coco_instance", "data.class_names=null", "batch_size=2",
        f"data.val.json={tmp_path}/val.json", f"data.val.images={coco_folder}/val",
        "backend=pycocotools", f"output_dir={tmp_path}/b",
    )  # fmt: skip
    assert "3 images" in out
    results = json.loads((tmp_path / "b" / "results.json").read_text(encoding="utf-8"))
    assert {result["image_id"] for result in results} <= {0, 1, 2, 3}
    # The ids are those of the evaluated file, not those of the file that the model was trained on.
    categories = {result["category_id"] for result in results}
    assert categories and categories <= {entry["id"] for entry in content["categories"]}


def test_evaluation_in_tiles(trained, command, failure, tmp_path):
    out = command(
        "evaluate", f"checkpoint={trained}", "tile=48", "overlap=0.25", "batch_size=4",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert "tiles: 48 pixels, overlap 0.25" in out
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert "mask/AP" in metrics and "val_loss/total" not in metrics
    line = failure("evaluate", f"checkpoint={trained}", "tile=48", "tta=flip", f"output_dir={tmp_path}/b")
    assert "tile and tta exclude each other" in line
    line = failure("evaluate", f"checkpoint={trained}", "overlap=1", f"output_dir={tmp_path}/b")
    assert "overlap must be a number from 0 to below 1" in line
