"""Writing, checking and opening exported models; ``nox -s export`` exports every architecture with dynamic sizes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from hydet.export import ExportMismatchError, export_model, open_exported
from hydet.export.agreement import BOUNDS, Agreement
from hydet.export.inference_graph import InferenceGraph

from .conftest import SIZE, as_inputs

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"
SUFFIX = {"onnx": "onnx", "torch_export": "pt2", "aoti": "pt2"}


def needs(format):
    if format == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="needs the extra 'export'")
    if format == "aoti" and shutil.which("g++") is None:
        pytest.skip("needs g++")


def assert_equal(outputs, expected):
    """Compare detections in any order, because nearly equal scores may change places."""
    agreement = Agreement(BOUNDS["fp32"], score_threshold=0.2, max_detections=100)
    agreement.add(expected, outputs)
    assert agreement.num_detections > 0
    agreement.check("the exported model")


@pytest.mark.parametrize("format", ["onnx", pytest.param("torch_export", marks=pytest.mark.export)])
def test_exported_model_gives_the_results_of_the_model(
    format, retinanet, metadata, images, exported_folder, tmp_path
):
    needs(format)
    shutil.copytree(exported_folder(format), tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"model.{SUFFIX[format]}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metadata.json", path.name]
    exported = open_exported(path)
    assert exported.description.check["detections"] > 20 and exported.description.needs_hydet == ()
    assert exported.tasks == ("box",) and exported.input_format == "RGB" and exported.metadata == metadata
    assert exported.build_mapper().transforms[0].max_size == 128
    batch = [images[0][:, :96, :112], images[1][:, :80, :100]]
    canvas = [torch.zeros(3, *SIZE, dtype=torch.uint8), *batch]  # gives both batches the same padded size
    for inputs in (batch, batch[:1]):
        with torch.no_grad():
            expected = retinanet.inference(as_inputs(retinanet, [canvas[0], *inputs]))[1:]
        assert_equal(exported(as_inputs(exported, inputs)), expected)
    with pytest.raises(ValueError, match="images up to 96 x 128, got 200 x 100"):
        exported([{"image": torch.zeros(3, 200, 100, dtype=torch.uint8)}])
    with pytest.raises(TypeError, match="takes uint8 images"):
        exported([{"image": torch.zeros(3, 32, 32)}])

    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="is damaged or was replaced"):
        open_exported(path)


def test_an_export_that_differs_from_the_model_is_not_written(
    retinanet, metadata, images, tmp_path, monkeypatch
):
    module = sys.modules["hydet.export.export_model"]
    graph = InferenceGraph(retinanet)

    def write(program, path, *_):
        path.write_bytes(b"content")
        return program

    def run(images, sizes):
        outputs = graph(images, sizes)
        return outputs | {"boxes": outputs["boxes"] + shift}

    monkeypatch.setattr(module, "capture", lambda *_: None)
    monkeypatch.setattr(module, "remaining_ops", lambda _: [])
    monkeypatch.setattr(module, "_output_names", lambda _: ["boxes", "scores", "classes", "counts"])
    monkeypatch.setattr(module, "write_program", write)
    monkeypatch.setattr(module, "open_program", lambda *_: run)
    path = tmp_path / "model.pt2"
    shift = 0.1
    with pytest.raises(
        ExportMismatchError, match=r"so it was not written: \d+ of \d+ detections have no equal"
    ):
        export_model(retinanet, path, format="torch_export", metadata=metadata, images=images)
    assert list(tmp_path.iterdir()) == []
    shift = 0.0
    export_model(retinanet, path, format="torch_export", metadata=metadata, images=images)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metadata.json", "model.pt2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "tflite"}, "format must be one of torch_export, onnx, aoti"),
        ({"path": "model.onnx"}, "a file of format=torch_export ends in .pt2"),
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16"),
        ({"format": "onnx", "path": "model.onnx", "precision": "bf16"}, "use precision=fp16"),
        ({"sizes": []}, "sizes must be pairs"),
        ({"images": []}, "at least one image"),
        ({"images": [torch.zeros(3, 8, 8)]}, "images must be"),
        ({"model": torch.nn.Linear(1, 1)}, "Linear has no tensor core"),
    ],
)
def test_bad_arguments_are_named(changes, message, retinanet, metadata, images, tmp_path):
    arguments = {
        "model": retinanet,
        "path": "model.pt2",
        "format": "torch_export",
        "metadata": metadata,
        "images": images,
    } | changes
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises((ValueError, TypeError), match=message):
        export_model(arguments.pop("model"), arguments.pop("path"), **arguments)


def test_the_description_of_another_export_is_not_overwritten(retinanet, metadata, images, tmp_path):
    (tmp_path / "metadata.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileExistsError, match="choose another folder"):
        export_model(
            retinanet, tmp_path / "model.pt2", format="torch_export", metadata=metadata, images=images
        )


def test_files_that_are_no_export_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metadata\.json"):
        open_exported(tmp_path)
    for text, message in [
        ("[1]", "does not belong to an exported model"),
        ("{", "is damaged"),
        (json.dumps({"kind": "hydet-export", "kind_version": 99}), "newer hydet"),
        (json.dumps({"kind": "hydet-export", "kind_version": 1}), "is damaged: KeyError"),
    ]:
        (tmp_path / "metadata.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            open_exported(tmp_path)


def test_the_example_runs_without_hydet_and_torch(images, exported_folder, tmp_path):
    needs("onnx")
    path = exported_folder("onnx") / "model.onnx"
    image = images[0][:, :96]
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "assert not {'torch', 'hydet'} & set(sys.modules)"
    )
    names = [str(path), "image.png", "drawn.png"]
    arguments = [*names, "--threshold", "0.2", "--json", "results.json"]
    subprocess.run([sys.executable, "-c", code, str(EXAMPLE), *arguments], cwd=tmp_path, check=True)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    instances = open_exported(path)([{"image": image}])[0]["instances"]
    torch.testing.assert_close(torch.tensor(results["boxes"]), instances.pred_boxes.tensor)
    torch.testing.assert_close(torch.tensor(results["scores"]), instances.scores)
    assert results["classes"] == instances.pred_classes.tolist()
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (image.shape[2], image.shape[1])
