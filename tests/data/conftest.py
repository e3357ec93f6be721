import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def coco_folder(tmp_path):
    """Write a COCO file; ``write(annotations, images=..., categories=...)`` returns arguments for CocoDataset."""

    def write(annotations=(), *, images=None, categories=None, size=(40, 30)):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        if images is None:
            images = [{"id": 5, "file_name": "a.png", "width": size[0], "height": size[1]}]
            pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "a.png")
        if categories is None:
            categories = [{"id": 9, "name": "cat"}, {"id": 3, "name": "dog"}]
        path = tmp_path / "annotations.json"
        content = {"images": images, "annotations": list(annotations), "categories": categories}
        path.write_text(json.dumps(content), encoding="utf-8")
        return {"json": path, "images": folder}

    return write


@pytest.fixture
def annotation():
    """Make a valid annotation of the image that ``coco_folder`` writes, with changes; ``...`` removes a key."""

    def make(**changes):
        base = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [4, 5, 10, 8], "area": 80, "iscrowd": 0}
        base["segmentation"] = [[4, 5, 14, 5, 14, 13, 4, 13]]
        return {k: v for k, v in (base | changes).items() if v is not ...}

    return make
