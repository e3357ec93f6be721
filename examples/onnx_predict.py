"""Detect objects with an exported model, using NumPy, ONNX Runtime and Pillow only.

    python examples/onnx_predict.py runs/export/model.onnx photo.jpg drawn.png

The folder of the model holds ``metadata.json``, which ``python -m src.export`` writes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

COLORS = [(230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240)]


def resized_size(width, height, resize):
    """Return the (width, height) that the model was evaluated at, rounded as hydet does."""
    if resize is None:
        return width, height
    if resize["name"] == "fixed":
        return resize["size"][1], resize["size"][0]
    scale = resize["short"] / min(width, height)
    new_width, new_height = width * scale, height * scale
    if resize["max_size"] is not None and max(new_width, new_height) > resize["max_size"]:
        scale = resize["max_size"] / max(new_width, new_height)
        new_width, new_height = new_width * scale, new_height * scale
    return max(1, int(new_width + 0.5)), max(1, int(new_height + 0.5))


def paste_mask(mask, box, width, height):
    """Resample an (M, M) mask over its box; return the (height, width) bool mask of the image."""

    def weights(count, low, high):
        # Position of each pixel center in cells of the mask; samples fade to zero over half a cell outside.
        position = (np.arange(count) + 0.5 - low) / (high - low) * mask.shape[0] - 0.5
        return np.clip(1 - np.abs(position[:, None] - np.arange(mask.shape[0])), 0, None)

    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return np.zeros((height, width), bool)
    return weights(height, y1, y2) @ mask @ weights(width, x1, x2).T >= 0.5


class Model:
    """An exported detector."""

    def __init__(self, path):
        path = Path(path)
        self.metadata = json.loads((path.parent / "metadata.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.names = self.metadata["dataset"]["thing_classes"]
        self.size = next(f["size"] for f in self.metadata["files"] if f["name"] == path.name)

    def predict(self, image):
        """Return boxes, scores, classes and masks (or None) in pixels of the image."""
        width, height = image.size
        new_width, new_height = resized_size(width, height, self.metadata["resize"])
        pixels = np.asarray(image.resize((new_width, new_height), Image.Resampling.BILINEAR))
        pixels = pixels.transpose(2, 0, 1)[None]  # (1, 3, H, W) uint8 RGB
        if self.size is not None:  # the graph takes images of one size: the image is its upper left corner
            padding = (self.size[0] - new_height, self.size[1] - new_width)
            pixels = np.pad(pixels, ((0, 0), (0, 0), (0, padding[0]), (0, padding[1])))
        sizes = np.array([[new_height, new_width]], np.int64)
        outputs = self.session.run(None, {"images": np.ascontiguousarray(pixels), "sizes": sizes})
        outputs = dict(zip(self.metadata["outputs"], outputs, strict=True))
        count = int(outputs["counts"][0])
        scale = np.array([width / new_width, height / new_height] * 2, np.float32)
        boxes = outputs["boxes"][0, :count] * scale
        masks = outputs["masks"][0, :count] if "masks" in outputs else None
        return boxes, outputs["scores"][0, :count], outputs["classes"][0, :count], masks


def draw(image, model, boxes, scores, classes, masks, threshold):
    """Return a copy of the image with the objects above the threshold."""
    drawn = image.copy()
    for i in np.flatnonzero(scores >= threshold):
        color = COLORS[int(classes[i]) % len(COLORS)]
        if masks is not None:
            mask = paste_mask(masks[i], boxes[i], *image.size)
            drawn.paste(color, mask=Image.fromarray(np.uint8(mask) * 110))
        canvas = ImageDraw.Draw(drawn)
        canvas.rectangle([float(side) for side in boxes[i]], outline=color, width=2)
        canvas.text(
            (float(boxes[i][0]) + 3, float(boxes[i][1]) + 1),
            f"{model.names[int(classes[i])]} {scores[i]:.2f}",
            fill=color,
        )
    return drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model.onnx")
    parser.add_argument("image")
    parser.add_argument("output", help="file for the drawn image")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of a drawn object")
    parser.add_argument("--json", help="file for boxes, scores and classes")
    arguments = parser.parse_args()
    model = Model(arguments.model)
    image = ImageOps.exif_transpose(Image.open(arguments.image)).convert("RGB")
    boxes, scores, classes, masks = model.predict(image)
    draw(image, model, boxes, scores, classes, masks, arguments.threshold).save(arguments.output)
    if arguments.json:
        values = {"boxes": boxes.tolist(), "scores": scores.tolist(), "classes": classes.tolist()}
        Path(arguments.json).write_text(json.dumps(values), encoding="utf-8")
    print(f"{int((scores >= arguments.threshold).sum())} objects: {arguments.output}")


if __name__ == "__main__":
    main()
