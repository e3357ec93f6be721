"""Opening of exported models."""

from hydet.export import is_exported


def test_is_exported_tells_exported_models_from_checkpoints(tmp_path):
    (tmp_path / "metadata.json").write_text('{"format": "hydet checkpoint"}', encoding="utf-8")
    (tmp_path / "weights.pth").touch()
    assert not is_exported(tmp_path) and not is_exported(tmp_path / "weights.pth")
    assert not is_exported("COCO-Detection/retinanet_R_50_FPN_3x") and not is_exported(tmp_path / "gone.onnx")
    (tmp_path / "model.onnx").touch()  # its metadata.json belongs to something else
    assert is_exported(tmp_path / "model.onnx")
