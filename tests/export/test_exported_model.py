"""Opening and evaluation of exported models."""

import dataclasses
import json

import pytest

import hydet
from hydet.config import ConfigError
from hydet.data.shapes import ShapesDataset
from hydet.export import is_exported

from .conftest import SIZE
from .test_export_model import needs


def test_is_exported_tells_exported_models_from_checkpoints(tmp_path):
    (tmp_path / "metadata.json").write_text('{"format": "hydet checkpoint"}', encoding="utf-8")
    (tmp_path / "weights.pth").touch()
    assert not is_exported(tmp_path) and not is_exported(tmp_path / "weights.pth")
    assert not is_exported("COCO-Detection/retinanet_R_50_FPN_3x") and not is_exported(tmp_path / "gone.onnx")
    (tmp_path / "model.onnx").touch()  # its metadata.json belongs to something else
    assert is_exported(tmp_path / "model.onnx")


def test_exported_model_is_evaluated_as_the_model(retinanet, exported_folder, tmp_path):
    needs("onnx")
    file = exported_folder("onnx") / "model.onnx"
    detector = hydet.load(file, device="cpu")
    assert detector.origin == str(file)
    data = ShapesDataset(num_images=2, seed=3, image_size=SIZE)
    metrics = detector.evaluate(data, "num_workers=0", output_dir=tmp_path / "exported")
    model = hydet.Detector.from_loaded(dataclasses.replace(detector.loaded, model=retinanet))
    expected = model.evaluate(data, "num_workers=0", output_dir=tmp_path / "model")
    assert metrics.keys() == expected.keys() and "val_loss/total" not in metrics
    boxes = [
        sorted([row["image_id"], row["category_id"], *row["bbox"]] for row in rows)
        for rows in (
            json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))
            for name in ("exported", "model")
        )
    ]
    assert len(boxes[0]) > 20
    for row, expected_row in zip(*boxes, strict=True):
        assert row == pytest.approx(expected_row, abs=0.02)


def test_exported_model_has_no_data_and_cannot_be_changed_or_exported(exported_folder, tmp_path):
    needs("onnx")
    file = exported_folder("onnx") / "model.onnx"
    detector = hydet.load(file, device="cpu")
    with pytest.raises(ConfigError, match=r"model\.onnx has no data of its own: .*data=coco_instance"):
        detector.evaluate()
    with pytest.raises(ConfigError, match="cannot be changed or compiled"):
        hydet.load(file, model={"test_score_thresh": 0.5})
    with pytest.raises(ConfigError, match="only a checkpoint or weight file"):
        detector.export(tmp_path / "again.onnx", format="onnx")
