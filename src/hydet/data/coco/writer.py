"""Export of a dataset to COCO files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hydet.data.coco.panoptic import ids_to_rgb
from hydet.data.datasets.coco_format import CocoImage
from hydet.data.datasets.dataset import RecordSource, as_detection_dataset
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record
from hydet.files import atomic_file, write_atomically

__all__ = ["write_coco", "write_png"]


def write_coco(
    dataset: RecordSource,
    folder: str | Path,
    *,
    split: str = "train",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Path]:
    """Write the images and annotations of a dataset as COCO files.

    The layout of the folder is::

        folder/annotations/instances_<split>.json    objects: boxes, masks, keypoints, rotated boxes
        folder/annotations/panoptic_<split>.json     segments, if the dataset has panoptic labels
        folder/<split>/*.png                         images
        folder/panoptic_<split>/*.png                segment ids, encoded as colors
        folder/semantic_<split>/*.png                semantic labels

    JSON files are written last and atomically, so an interrupted call leaves no incomplete JSON file.

    Args:
        dataset: the dataset to write.
        folder: output folder, created if necessary; existing files of the same names are replaced.
        split: name of the split, such as ``"train"``, for the file names.
        progress: called after each image with the number of images written.

    Returns:
        The paths ``instances`` and ``images``, and if the dataset has these labels, ``panoptic``, ``panoptic_images``
        and ``semantic``.
    """
    dataset = as_detection_dataset(dataset)
    root = Path(folder)
    paths = {"instances": root / "annotations" / f"instances_{split}.json", "images": root / split}
    panoptic_annotations: list[dict[str, object]] = []
    names: dict[int, str] = {}
    used_names: set[str] = set()
    for index in range(len(dataset)):
        record = dataset[index]
        name = _unique_name(record.file_name, used_names)
        names[record.image_id] = name
        write_png(record.image.permute(1, 2, 0).numpy(), paths["images"] / name)
        if record.panoptic_seg is not None:
            paths["panoptic"] = root / "annotations" / f"panoptic_{split}.json"
            paths["panoptic_images"] = root / f"panoptic_{split}"
            write_png(ids_to_rgb(record.panoptic_seg.numpy()), paths["panoptic_images"] / name)
            panoptic_annotations.append(_panoptic_annotation(record, name, dataset.metadata))
        if record.sem_seg is not None:
            paths["semantic"] = root / f"semantic_{split}"
            write_png(_to_label_pixels(record.sem_seg.numpy()), paths["semantic"] / name)
        if progress is not None:
            progress(index + 1)
    coco = dataset.to_coco()
    for image in coco["images"]:
        image["file_name"] = names[image["id"]]
    if panoptic_annotations:
        panoptic_json = _panoptic_json(coco["images"], panoptic_annotations, dataset.metadata)
        write_atomically(paths["panoptic"], json.dumps(panoptic_json))
    write_atomically(paths["instances"], json.dumps(coco))
    return paths


def _unique_name(file_name: str, used_names: set[str]) -> str:
    """Return the name of the PNG file of an image, below any folder, and add it to ``used_names``."""
    path = Path(file_name.replace("\\", "/")).with_suffix("")
    stem = "/".join(part for part in path.parts if part not in (path.anchor, "..", ""))
    name, number = f"{stem}.png", 2
    while name in used_names:  # a.jpg and a.png become one name
        name, number = f"{stem}_{number}.png", number + 1
    used_names.add(name)
    return name


def _to_label_pixels(labels: np.ndarray) -> np.ndarray:
    """Return labels in the smallest type of a PNG file that holds them."""
    return labels.astype(np.uint8 if labels.max(initial=0) <= 255 else np.uint16)


def _panoptic_annotation(record: Record, name: str, metadata: Metadata) -> dict[str, object]:
    assert record.panoptic_seg is not None
    segments = []
    for segment in record.segments_info or ():
        category_ids = metadata.thing_ids if segment["isthing"] else metadata.stuff_ids
        rows, columns = (record.panoptic_seg == segment["id"]).numpy().nonzero()
        if len(rows) == 0:  # other objects cover it, and the format has no segment without pixels
            continue
        x, y = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": segment["id"],
                "category_id": category_ids[segment["category_id"]],
                "iscrowd": int(segment["iscrowd"]),
                "area": segment["area"],
                "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
            }
        )
    return {"image_id": record.image_id, "file_name": name, "segments_info": segments}


def _panoptic_json(
    images: Sequence[CocoImage], annotations: Sequence[Mapping[str, object]], metadata: Metadata
) -> dict[str, object]:
    """Return the content of a panoptic JSON file."""
    things = [{"id": i, "name": n, "isthing": 1} for i, n in zip(metadata.thing_ids, metadata.thing_classes)]
    stuff = [{"id": i, "name": n, "isthing": 0} for i, n in zip(metadata.stuff_ids, metadata.stuff_classes)]
    categories = things + stuff[1:]  # label 0 represents the things
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_png(pixels: np.ndarray, path: Path) -> None:
    """Write ``(H, W)`` gray (uint8 or uint16) or ``(H, W, 3)`` RGB uint8 pixels as a PNG file, and create its folder."""
    with atomic_file(path, flush=False) as unfinished:
        Image.fromarray(np.ascontiguousarray(pixels)).save(unfinished, format="PNG", compress_level=3)
