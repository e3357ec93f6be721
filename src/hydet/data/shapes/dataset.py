"""The generated dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hydet.data.datasets.dataset import BaseDataset
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Proposals, Record
from hydet.data.hashing import hashed, uniform
from hydet.data.shapes.outlines import KEYPOINTS, SHAPES
from hydet.data.shapes.rough_proposals import draw_rough_proposals
from hydet.data.shapes.scene import TEXTURES, Scene, SceneStyle, draw_scene

__all__ = ["SHAPE_CLASSES", "SHAPE_KEYPOINTS", "ShapesDataset"]

SHAPE_CLASSES = tuple(SHAPES)
SHAPE_KEYPOINTS = KEYPOINTS
_IDS = dict(zip(SHAPE_CLASSES, (1, 2, 4, 7, 8, 11)))  # with gaps, as in COCO
_PALETTE = dict(
    zip(
        SHAPE_CLASSES,
        ((230, 75, 60), (60, 130, 230), (60, 180, 75), (245, 190, 40), (150, 85, 210), (240, 110, 180)),
    )
)
_MOST_OBJECTS = 64  # annotation ids of an image start at a multiple of it


class ShapesDataset(BaseDataset):
    """Pictures of simple shapes, generated from a seed: nothing to download, and every annotation exact.

    Each picture depends only on the seed and its index. Held-out data is the same dataset with another seed.

    An object's mask, box and area are those of its visible part; its rotated box and keypoints belong to the whole
    shape. Keypoints are the centre, and points towards the left, right, top and bottom of the picture; one behind
    another object has visibility 1, one outside the picture 0. Semantic label 0 stands for all things, the others
    for the textures of the background. A crowd is a clump of tiny shapes in one annotation.

    Args:
        num_images: length of the dataset.
        seed: of the whole dataset.
        image_size: (height, width) in pixels.
        max_image_size: if given, sizes vary from ``image_size`` to this.
        class_names: which of ``SHAPE_CLASSES``; all of them by default.
        min_objects: least number of objects wanted in a picture that is not empty.
        max_objects: largest number of objects, apart from a crowd.
        min_size: of a shape, in pixels.
        max_size: of a shape, as a fraction of the picture's shorter side.
        rotation: shapes are turned by up to so many degrees either way.
        min_visibility: objects that are hidden or cut more than this are left out, as a fraction of their area.
        empty_fraction: of the pictures without any object.
        crowd_fraction: of the pictures with a crowd.
        max_distractors: lines drawn over the background.
        contrast: least distance between the colours of objects and background (0 to 1 in each of R, G, B).
        noise: amplitude of the pixel noise in grey levels.
        textures: whether the background is textured, and may be split in two.
        num_proposals: proposals per image, for models without a proposal generator: perturbed boxes of the objects, and
            random boxes.
        cache: keep every picture in memory once it was drawn (4 bytes a pixel).
        name: for messages.

    Raises:
        ValueError: for unknown classes and numbers out of range.
    """

    def __init__(
        self,
        *,
        num_images: int,
        seed: int = 0,
        image_size: Sequence[int] = (128, 128),
        max_image_size: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        min_objects: int = 1,
        max_objects: int = 6,
        min_size: float = 8.0,
        max_size: float = 0.8,
        rotation: float = 30.0,
        min_visibility: float = 0.4,
        empty_fraction: float = 0.04,
        crowd_fraction: float = 0.06,
        max_distractors: int = 3,
        contrast: float = 0.45,
        noise: int = 5,
        textures: bool = True,
        num_proposals: int = 0,
        cache: bool = False,
        name: str = "shapes",
    ) -> None:
        class_names = SHAPE_CLASSES if class_names is None else tuple(class_names)
        largest = image_size if max_image_size is None else max_image_size
        unknown = [c for c in class_names if c not in SHAPES]
        if unknown or not class_names:
            raise ValueError(
                f"ShapesDataset: class_names must be among {list(SHAPE_CLASSES)}, got {list(class_names)}"
            )
        if num_images < 0:
            raise ValueError(f"ShapesDataset: num_images must not be negative, got {num_images}")
        if len(image_size) != 2 or len(largest) != 2 or any(b < a for a, b in zip(image_size, largest)):
            raise ValueError(
                f"ShapesDataset: sizes are (height, width), from small to large; got {image_size} to {largest}"
            )
        if min(image_size) < 4 * min_size:
            raise ValueError(
                f"ShapesDataset: min_size {min_size} is too large for pictures of {tuple(image_size)}"
            )
        if not 0 < min_objects <= max_objects < _MOST_OBJECTS - 1:
            raise ValueError(
                f"ShapesDataset: 0 < min_objects <= max_objects < {_MOST_OBJECTS - 1}, got {min_objects} and {max_objects}"
            )
        if num_proposals < 0:
            raise ValueError(f"ShapesDataset: num_proposals must not be negative, got {num_proposals}")
        if min_size <= 0 or not 0 < max_size <= 1:
            raise ValueError(
                f"ShapesDataset: min_size > 0 (pixels) and 0 < max_size <= 1, got {min_size}, {max_size}"
            )
        self.num_images = num_images
        self.seed = seed
        self.style = SceneStyle(
            shapes=class_names,
            min_objects=min_objects,
            max_objects=max_objects,
            min_size=min_size,
            max_size=max_size,
            rotation=rotation,
            min_visibility=min_visibility,
            empty_fraction=empty_fraction,
            crowd_fraction=crowd_fraction,
            max_distractors=max_distractors,
            contrast=contrast,
            noise=noise,
            textures=textures,
        )
        self.metadata = Metadata(
            name=name,
            thing_classes=class_names,
            thing_ids=tuple(_IDS[c] for c in class_names),
            keypoint_names=SHAPE_KEYPOINTS,
            keypoint_flip_pairs=(("left", "right"),),
            keypoint_sigmas=(0.05,) * len(SHAPE_KEYPOINTS),
            keypoint_skeleton=tuple(("center", other) for other in SHAPE_KEYPOINTS[1:]),
            stuff_classes=("things", *TEXTURES),
            stuff_ids=(0, *range(101, 101 + len(TEXTURES))),
            palette=tuple(_PALETTE[c] for c in class_names),
        )
        index = np.arange(num_images)
        sides = []
        for axis, (low, high) in enumerate(zip(image_size, largest)):
            draw = uniform(hashed(seed, axis), index)
            sides.append(low + np.floor(draw * (high - low + 1)).astype(np.int64))
        self._heights, self._widths = sides
        self.num_proposals = num_proposals
        self.cache = cache
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return self.num_images

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64, width over height."""
        return self._widths / self._heights

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64."""
        return np.arange(1, self.num_images + 1)

    def classes_of_images(self) -> list[list[int]]:
        """For each picture the classes of its objects, crowds excluded; draws every picture."""
        scenes = map(self._scene, range(self.num_images))
        return [np.unique(scene.classes[~scene.iscrowd]).tolist() for scene in scenes]

    def __getitem__(self, index: int) -> Record:
        """The picture ``index``, drawn or from memory.

        Raises:
            IndexError: if there is none.
        """
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f"picture {index} of {self.num_images}")
        index = int(index) % self.num_images
        return self._record(index, self._scene(index))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scenes": {}}  # a worker process keeps its own

    def to_coco(self) -> dict[str, Any]:
        """All annotations as COCO's JSON has them, with the category ids of ``metadata.thing_ids``."""
        images, annotations = [], []
        for index in range(self.num_images):
            record, scene = self[index], self._scene(index)
            images.append(
                {
                    "id": record.image_id,
                    "file_name": record.file_name,
                    "height": record.height,
                    "width": record.width,
                }
            )
            for i in range(len(record)):
                annotations.append(self._annotation(record, scene, i))
        return {"info": {}, "images": images, "annotations": annotations, "categories": self._categories()}

    def _scene(self, index: int) -> Scene:
        scene = self._scenes.get(index)
        if scene is None:
            rng = np.random.default_rng(hashed(self.seed, 2, index))
            scene = draw_scene(rng, int(self._heights[index]), int(self._widths[index]), self.style)
            if self.cache:
                self._scenes[index] = scene
        return scene

    def _record(self, index: int, scene: Scene) -> Record:
        regions, count = len(scene.stuff), len(scene.classes)
        labels = np.zeros(regions + count + 1, dtype=np.uint8)
        labels[1 : regions + 1] = np.array(scene.stuff) + 1
        numbers = np.arange(regions + 1, regions + count + 1, dtype=np.uint8)
        return Record(
            image=torch.from_numpy(scene.image).permute(2, 0, 1),
            image_id=index + 1,
            file_name=f"{index:06d}.png",
            height=scene.ids.shape[0],
            width=scene.ids.shape[1],
            boxes=torch.from_numpy(scene.boxes.copy()),
            classes=torch.from_numpy(scene.classes.copy()),
            iscrowd=torch.from_numpy(scene.iscrowd.copy()),
            annotation_ids=torch.arange(count) + ((index + 1) * _MOST_OBJECTS),
            segments=list(scene.segments),
            masks=torch.from_numpy(scene.ids == numbers[:, None, None]),
            keypoints=torch.from_numpy(scene.keypoints.copy()),
            rotated_boxes=torch.from_numpy(scene.rotated_boxes.copy()),
            sem_seg=torch.from_numpy(labels[scene.ids]),
            panoptic_seg=torch.from_numpy(scene.ids.astype(np.int32)),
            segments_info=self._segments_info(scene),
            proposals=self._proposals(index, scene) if self.num_proposals else None,
            metadata=self.metadata,
        )

    def _proposals(self, index: int, scene: Scene) -> Proposals:
        rng = np.random.default_rng(hashed(self.seed, 3, index))
        height, width = scene.ids.shape
        return draw_rough_proposals(rng, scene.boxes, height, width, self.num_proposals)

    def _segments_info(self, scene: Scene) -> list[dict[str, Any]]:
        areas = np.bincount(scene.ids.reshape(-1), minlength=len(scene.stuff) + 1)
        found = [
            {
                "id": i,
                "category_id": texture + 1,
                "isthing": False,
                "iscrowd": False,
                "area": int(areas[i]),
            }
            for i, texture in enumerate(scene.stuff, start=1)
            if areas[i] > 0
        ]
        for i, label in enumerate(scene.classes.tolist()):
            found.append(
                {
                    "id": len(scene.stuff) + 1 + i,
                    "category_id": label,
                    "isthing": True,
                    "iscrowd": bool(scene.iscrowd[i]),
                    "area": int(scene.areas[i]),
                }
            )
        return found

    def _annotation(self, record: Record, scene: Scene, i: int) -> dict[str, Any]:
        x1, y1, x2, y2 = record.boxes[i].tolist()
        segment = scene.segments[i]
        if isinstance(segment, dict):
            counts = segment["counts"]
            segment = {
                "size": segment["size"],
                "counts": counts.decode() if isinstance(counts, bytes) else counts,
            }
        else:
            segment = [polygon.tolist() for polygon in segment]
        keypoints = scene.keypoints[i].astype(np.float64).round(2)
        return {
            "id": int(record.annotation_ids[i]),
            "image_id": record.image_id,
            "category_id": self.metadata.thing_ids[int(record.classes[i])],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(scene.areas[i]),
            "iscrowd": int(record.iscrowd[i]),
            "segmentation": segment,
            "keypoints": keypoints.reshape(-1).tolist(),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "rotated_bbox": scene.rotated_boxes[i].astype(np.float64).round(2).tolist(),
        }

    def _categories(self) -> list[dict[str, Any]]:
        names = list(self.metadata.keypoint_names)
        skeleton = [[names.index(name) + 1 for name in pair] for pair in self.metadata.keypoint_skeleton]
        return [
            {
                "id": number,
                "name": name,
                "supercategory": "shape",
                "keypoints": names,
                "skeleton": skeleton,
                "keypoint_sigmas": list(self.metadata.keypoint_sigmas),
            }
            for number, name in zip(self.metadata.thing_ids, self.metadata.thing_classes)
        ]
