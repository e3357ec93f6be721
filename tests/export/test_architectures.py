"""Every architecture in every format that can express it, for any number and size of images: ``nox -s export``.

``export_model`` itself compares each file with the model, on single images and on a batch.
"""

from functools import partial
from pathlib import Path

import pytest
import torch

import hydet.conf
from hydet.export import export_model, open_exported
from hydet.export.export_model import comparison_batches, thresholds_of

from .conftest import StableImages, as_inputs, shrink_deltas, small_model
from .test_export_model import SUFFIX, needs

ARCHITECTURES = sorted(p.stem for p in (Path(hydet.conf.__path__[0]) / "model").glob("*.yaml"))
EXPORTED = [name for name in ARCHITECTURES if name != "mmdet" and not name.startswith("fast_rcnn")]
SIZES = [(96, 128), (64, 70), (32, 40)]  # the coarsest maps of the last have one cell


@pytest.mark.export
@pytest.mark.parametrize("format", ["torch_export", "onnx", "aoti"])
@pytest.mark.parametrize("name", EXPORTED)
def test_architecture_exports(name, format, metadata, tmp_path):
    if format == "onnx" and "rotated" in name:
        pytest.skip("ONNX has no operator for rotated boxes")
    needs(format)
    model = small_model(name)
    stable = StableImages(model, thresholds_of(model))
    images = stable.make((96, 112), (128, 120), batches=partial(comparison_batches, size=None, max_size=None))
    path = tmp_path / f"model.{SUFFIX[format]}"
    description = export_model(model, path, format=format, metadata=metadata, images=images)
    assert bool(description.needs_hydet) == ("rotated" in name)
    exported = open_exported(path)
    for size in SIZES:
        batch = [stable.make(size)[0] for _ in range(3)]
        for count in (1, 3):
            agreement = stable.agreement()
            with torch.no_grad():
                expected = model.inference(as_inputs(model, batch[:count]))
                agreement.add(expected, exported(as_inputs(exported, batch[:count])))
            agreement.check(f"{count} images of {size}")


@pytest.mark.export
@pytest.mark.parametrize(
    ("format", "precision"), [("torch_export", "bf16"), ("torch_export", "fp16"), ("onnx", "fp16")]
)
@pytest.mark.parametrize("name", ["retinanet", "mask_rcnn_fpn"])
def test_half_precision(name, format, precision, metadata, images, tmp_path):
    needs(format)
    path = tmp_path / f"model.{SUFFIX[format]}"
    model = shrink_deltas(small_model(name))
    export_model(model, path, format=format, metadata=metadata, images=images, precision=precision)
    assert open_exported(path).description.precision == precision
