"""Train on 18 images in COCO's format for 150 steps with the README's command for own data and ``preset=quick``.

``python benchmarks/learn_photos.py`` draws rectangles and ellipses on noise, trains from scratch on the CPU, and fails if
the AP on the training images stays at 40 or below. It takes about five minutes on one idle core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
SIZE = (160, 120)  # pixels
COLORS = ((220, 40, 40), (40, 40, 220))
FLOOR = 0.40


def write_photos(folder: Path, count: int = 18) -> None:
    """Write ``count`` images with two objects each, and ``a.json``."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        rng = np.random.default_rng(i)
        image = Image.fromarray(rng.integers(90, 130, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(2):
            w, h = rng.integers(24, 60, 2).tolist()
            x, y = int(rng.integers(0, SIZE[0] - w)), int(rng.integers(0, SIZE[1] - h))
            kind = int(rng.integers(0, 2))
            (draw.rectangle, draw.ellipse)[kind]([x, y, x + w, y + h], fill=COLORS[kind])
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": i + 1, "category_id": kind + 1, "bbox": [x, y, w, h],
                    "area": w * h, "iscrowd": 0, "segmentation": [],
                }
            )  # fmt: skip
        image.save(folder / "images" / f"p{i:02d}.jpg")
        images.append({"id": i + 1, "file_name": f"p{i:02d}.jpg", "width": SIZE[0], "height": SIZE[1]})
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")


def main() -> int:
    """Train; return 1 if the AP stays at the floor or below."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "my")
        paths = [
            f"data.{split}.{key}={folder / 'my' / name}"
            for split in ("train", "val")
            for key, name in (("json", "a.json"), ("images", "images"))
        ]
        overrides = ["data=coco_instance", *paths, "data.class_names=null", "batch_size=8", "preset=quick"]
        run = folder / "run"
        subprocess.run(
            [
                sys.executable, "-m", "src.train", *overrides, "trainer.max_steps=150", "trainer.device=cpu",
                f"output_dir={run}",
            ],
            cwd=ROOT,
            check=True,
        )  # fmt: skip
        ap = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["box/AP"]
    print(f"box AP {100 * ap:.1f} on the training images; must exceed {100 * FLOOR:.0f}")
    return 0 if ap > FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
