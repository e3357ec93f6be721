from hydet.data import CocoDataset
from hydet.data.shapes.__main__ import main


def test_command_writes_both_splits(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--num-images", "3", "--val-images", "2", "--image-size", "48", "48"]
    assert main(arguments) == 0
    assert "data=coco_instance" in capsys.readouterr().out
    for split, count in (("train", 3), ("val", 2)):
        path = tmp_path / "annotations" / f"instances_{split}.json"
        assert len(CocoDataset(json=path, images=tmp_path / split, policy="raise")) == count


def test_command_with_invalid_arguments(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--num-images", "3", "--image-size", "8", "8"]) == 2
    assert "too large" in capsys.readouterr().err
