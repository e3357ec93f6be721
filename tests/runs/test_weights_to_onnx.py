"""From weights of torchvision to an ONNX file that runs without hydet, by the steps that a user takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import hydet
from hydet.cli import export, predict, train
from hydet.data import ShapesDataset
from hydet.interop import read_foreign
from hydet.visualization import save_png

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"
IMAGES = 3


@pytest.fixture
def weights(tmp_path):
    """Random weights of torchvision's Faster R-CNN with a ResNet-18."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    path = tmp_path / "torchvision.pth"
    torch.save(FasterRCNN(backbone, num_classes=91).state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path):
    dataset = ShapesDataset(num_images=IMAGES, seed=3, image_size=(96, 96))
    for i in range(IMAGES):
        save_png(dataset[i].image, tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def run_without_hydet(model, image, folder):
    """Run the example in a process that may import neither hydet nor torch; return what it detects."""
    code = (
        "import runpy, sys; sys.modules['hydet'] = sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [str(EXAMPLE), str(model), str(image), "drawn.png", "--json", "results.json"]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, check=True)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.export
def test_weights_of_torchvision_are_trained_predicted_and_exported(weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [
        override
        for override in read_foreign(weights).model.overrides
        if "num_classes" not in override and not override.lstrip("+").startswith("data")
    ]
    trained = [
        "data=shapes",
        "preset=none",
        "data.train.num_images=8",
        "data.val.num_images=2",
        "augment=flip",
        "trainer=short",
        "trainer.max_steps=20",
        "batch_size=2",
        "num_workers=0",
        "evaluation.with_losses=false",
        "model.roi_heads.box_predictor.test_score_thresh=0.01",
    ]
    status = train.main([*overrides, *trained, f"init_from={weights}", "output_dir=runs/a"])
    assert status == 0

    detector = hydet.load("runs/a", device="cpu", inference="exact")
    results = list(detector.predict(photos))
    assert len(results) == IMAGES and sum(len(result) for result in results) > 0

    command = ["checkpoint=runs/a", f"input={photos}", "device=cpu", "inference=exact"]
    assert predict.main([*command, "output_dir=predicted"]) == 0
    stored = json.loads(Path("predicted/results.json").read_text(encoding="utf-8"))
    from_python = [entry for result in results for entry in result.to_coco()]
    assert len(stored) == len(from_python)
    for entry, other in zip(stored, from_python, strict=True):
        assert entry["category_id"] == other["category_id"]
        assert entry["score"] == pytest.approx(other["score"], abs=1e-6)
        assert entry["bbox"] == pytest.approx(other["bbox"], abs=1e-3)

    assert export.main(["checkpoint=runs/a", "format=onnx", f"images={photos}", "output_dir=exported"]) == 0
    loaded = hydet.load("exported/model.onnx")
    for photo, result in zip(sorted(photos.iterdir()), results, strict=True):
        detected = run_without_hydet(Path("exported/model.onnx").resolve(), photo, tmp_path)
        for boxes, scores in [
            (torch.tensor(detected["boxes"]).reshape(-1, 4), torch.tensor(detected["scores"])),
            (loaded.predict(photo)[0].boxes, loaded.predict(photo)[0].scores),
        ]:
            assert len(boxes) == len(result)
            torch.testing.assert_close(boxes, result.boxes, rtol=0, atol=1e-2)
            torch.testing.assert_close(scores, result.scores, rtol=0, atol=1e-4)
