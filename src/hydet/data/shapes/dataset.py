"""The dataset of generated shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hydet.data.datasets.coco_format import (
    CocoAnnotation,
    CocoCategory,
    CocoJson,
    image_to_coco,
    segment_to_coco,
)
from hydet.data.datasets.dataset import BaseDataset
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Proposals, Record
from hydet.data.hashing import derive_seed, hash_to_unit_interval
from hydet.data.shapes.outlines import KEYPOINTS, SHAPES
from hydet.data.shapes.painting import TEXTURES
from hydet.data.shapes.rough_proposals import draw_rough_proposals
from hydet.data.shapes.scene import Scene, draw_scene
from hydet.data.shapes.scene_style import SceneStyle
from hydet.structures import SegmentInfo

__all__ = ["SHAPE_CLASSES", "SHAPE_KEYPOINTS", "ShapesDataset"]

SHAPE_CLASSES = tuple(SHAPES)
SHAPE_KEYPOINTS = KEYPOINTS
# With gaps, as in COCO, so that tests notice when a class is used as a category id.
_CATEGORY_IDS = dict(zip(SHAPE_CLASSES, (1, 2, 4, 7, 8, 11)))
_FIRST_STUFF_ID = 101
_PALETTE = dict(
    zip(
        SHAPE_CLASSES,
        ((230, 75, 60), (60, 130, 230), (60, 180, 75), (245, 190, 40), (150, 85, 210), (240, 110, 180)),
    )
)
_IDS_PER_IMAGE = 64  # annotation ids of an image start at a multiple of this
_SIGMA = 0.05  # COCO's tolerance, the same for all keypoints

# Numbers that keep the random streams of one seed apart; 0 and 1 are the height and the width.
_SCENE_STREAM = 2
_PROPOSAL_STREAM = 3


class ShapesDataset(BaseDataset):
    """Generated images of simple shapes with exact annotations. No download is necessary.

    Each image depends only on the seed and its index. For held-out data, use another seed.

    The mask, box and area of an object are those of its visible part; its rotated box and keypoints belong to the whole
    shape. The keypoints are the center, and points towards the left, right, top and bottom of the image. Their
    visibility is 1 behind another object and 0 outside the image. Semantic label 0 represents all things, the other
    labels the textures of the background. A crowd is a group of tiny shapes in one annotation.

    Args:
        num_images: length of the dataset.
        seed: seed of the whole dataset.
        image_size: (height, width) in pixels.
        max_image_size: largest (height, width); sizes vary from ``image_size`` to this. By default, all are equal.
        class_names: classes to use, from ``SHAPE_CLASSES``; all by default.
        min_objects: least number of objects to draw in an image that is not empty. Hidden objects are dropped.
        max_objects: largest number of objects, not counting a crowd.
        min_size: least size of a shape in pixels.
        max_size: largest size of a shape, as a fraction of the shorter side of the image.
        rotation: largest rotation of a shape in degrees, in both directions.
        min_visibility: least visible fraction of an object's area; objects below are dropped.
        empty_fraction: fraction of images without objects.
        crowd_fraction: fraction of images with a crowd.
        max_distractors: largest number of lines drawn over the background.
        contrast: least distance between the colors of objects and background, in RGB from 0 to 1.
        noise: amplitude of the pixel noise in gray levels.
        textures: True for textured backgrounds, which may consist of two regions.
        num_proposals: proposals per image, for models without a proposal generator: perturbed boxes of the objects, and
            random boxes.
        cache: keep images in memory after drawing them (4 bytes per pixel).
        name: name for messages.

    Raises:
        ValueError: if a class is unknown or a number is out of range.
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
        max_image_size = image_size if max_image_size is None else max_image_size
        style = SceneStyle(
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
        if num_images < 0:
            raise ValueError(f"ShapesDataset: num_images must not be negative, got {num_images}")
        if num_proposals < 0:
            raise ValueError(f"ShapesDataset: num_proposals must not be negative, got {num_proposals}")
        _check_style(style, image_size, max_image_size)
        self.num_images = num_images
        self.seed = seed
        self.style = style
        self.num_proposals = num_proposals
        self.has_proposals = num_proposals > 0
        self.labels = frozenset({"masks", "keypoints", "rotated_boxes", "semantic", "panoptic"})
        self.cache = cache
        self.metadata = _make_metadata(name, class_names)
        self._heights, self._widths = _draw_sizes(seed, num_images, image_size, max_image_size)
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return self.num_images

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64 width divided by height."""
        return np.asarray(self._widths / self._heights)

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64 image ids, 1 ... N."""
        return np.arange(1, self.num_images + 1)

    def classes_of_images(self) -> list[list[int]]:
        """Return the distinct classes in each image, with crowds. This draws every image."""
        scenes = map(self._scene, range(self.num_images))
        return [np.unique(scene.classes).tolist() for scene in scenes]

    def __getitem__(self, index: int, /) -> Record:
        """Return an image and its annotations.

        Raises:
            IndexError: if ``index`` is out of range.
        """
        if not -self.num_images <= index < self.num_images:
            raise IndexError(f"index {index} is out of range for a dataset of {self.num_images} images")
        index = int(index) % self.num_images
        return self._record(index, self._scene(index))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_scenes": {}}  # each worker process fills a cache of its own

    def to_coco(self) -> CocoJson:
        """Return all annotations as COCO's JSON, with the category ids of ``metadata``."""
        images, annotations = [], []
        for index in range(self.num_images):
            scene = self._scene(index)
            record = self._record(index, scene)
            images.append(image_to_coco(record))
            annotations += [self._annotation(record, scene, row) for row in range(len(record))]
        return {"info": {}, "images": images, "annotations": annotations, "categories": self._categories()}

    def _scene(self, index: int) -> Scene:
        scene = self._scenes.get(index)
        if scene is None:
            rng = np.random.default_rng(derive_seed(self.seed, _SCENE_STREAM, index))
            scene = draw_scene(rng, int(self._heights[index]), int(self._widths[index]), self.style)
            if self.cache:
                self._scenes[index] = scene
        return scene

    def _record(self, index: int, scene: Scene) -> Record:
        num_regions, num_objects = len(scene.textures), len(scene.classes)
        label_of = np.zeros(1 + num_regions + num_objects, dtype=np.uint8)  # by region id; 0 for objects
        label_of[1 : num_regions + 1] = np.array(scene.textures) + 1
        object_ids = np.arange(num_regions + 1, num_regions + num_objects + 1, dtype=np.uint8)
        return Record(
            image=torch.from_numpy(scene.image).permute(2, 0, 1),
            image_id=index + 1,
            file_name=f"{index:06d}.png",
            height=scene.ids.shape[0],
            width=scene.ids.shape[1],
            boxes=torch.from_numpy(scene.boxes.copy()),
            classes=torch.from_numpy(scene.classes.copy()),
            iscrowd=torch.from_numpy(scene.iscrowd.copy()),
            annotation_ids=torch.arange(num_objects) + ((index + 1) * _IDS_PER_IMAGE),
            segments=list(scene.segments),
            masks=torch.from_numpy(scene.ids == object_ids[:, None, None]),
            keypoints=torch.from_numpy(scene.keypoints.copy()),
            rotated_boxes=torch.from_numpy(scene.rotated_boxes.copy()),
            sem_seg=torch.from_numpy(label_of[scene.ids]),
            panoptic_seg=torch.from_numpy(scene.ids.astype(np.int32)),
            segments_info=_segments_info(scene),
            proposals=self._proposals(index, scene) if self.num_proposals else None,
            metadata=self.metadata,
        )

    def _proposals(self, index: int, scene: Scene) -> Proposals:
        rng = np.random.default_rng(derive_seed(self.seed, _PROPOSAL_STREAM, index))
        height, width = scene.ids.shape
        return draw_rough_proposals(rng, scene.boxes, height, width, self.num_proposals)

    def _annotation(self, record: Record, scene: Scene, row: int) -> CocoAnnotation:
        x1, y1, x2, y2 = record.boxes[row].tolist()
        # float32 to two decimals, which is how shapes are placed.
        keypoints = scene.keypoints[row].astype(np.float64).round(2)
        return {
            "id": int(record.annotation_ids[row]),
            "image_id": record.image_id,
            "category_id": self.metadata.thing_ids[int(record.classes[row])],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": int(scene.areas[row]),
            "iscrowd": int(record.iscrowd[row]),
            "segmentation": segment_to_coco(scene.segments[row], record.height, record.width),
            "keypoints": keypoints.reshape(-1).tolist(),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "rotated_bbox": scene.rotated_boxes[row].astype(np.float64).round(2).tolist(),
        }

    def _categories(self) -> list[CocoCategory]:
        names = list(self.metadata.keypoint_names)
        skeleton = [[names.index(name) + 1 for name in pair] for pair in self.metadata.keypoint_skeleton]
        return [
            {
                "id": category_id,
                "name": name,
                "supercategory": "shape",
                "keypoints": names,
                "skeleton": skeleton,
                "keypoint_sigmas": list(self.metadata.keypoint_sigmas),
            }
            for category_id, name in zip(self.metadata.thing_ids, self.metadata.thing_classes)
        ]


def _check_style(style: SceneStyle, image_size: Sequence[int], max_image_size: Sequence[int]) -> None:
    if not style.shapes or any(name not in SHAPES for name in style.shapes):
        raise ValueError(
            f"ShapesDataset: class_names must be among {list(SHAPE_CLASSES)}, got {list(style.shapes)}"
        )
    are_pairs = len(image_size) == len(max_image_size) == 2
    if not are_pairs or any(high < low for low, high in zip(image_size, max_image_size)):
        raise ValueError(
            "ShapesDataset: image_size and max_image_size must be (height, width), the second at least as large, "
            f"got {image_size} and {max_image_size}"
        )
    if min(image_size) < 4 * style.min_size:
        raise ValueError(
            f"ShapesDataset: min_size {style.min_size} is too large for images of {tuple(image_size)}"
        )
    if not 0 < style.min_objects <= style.max_objects < _IDS_PER_IMAGE - 1:
        raise ValueError(
            f"ShapesDataset: 0 < min_objects <= max_objects < {_IDS_PER_IMAGE - 1} must hold, "
            f"got {style.min_objects} and {style.max_objects}"
        )
    if style.min_size <= 0 or not 0 < style.max_size <= 1:
        raise ValueError(
            "ShapesDataset: min_size must be positive (pixels) and max_size in (0, 1] (a fraction), "
            f"got {style.min_size} and {style.max_size}"
        )


def _make_metadata(name: str, class_names: tuple[str, ...]) -> Metadata:
    return Metadata(
        name=name,
        thing_classes=class_names,
        thing_ids=tuple(_CATEGORY_IDS[c] for c in class_names),
        keypoint_names=SHAPE_KEYPOINTS,
        keypoint_flip_pairs=(("left", "right"),),
        keypoint_sigmas=(_SIGMA,) * len(SHAPE_KEYPOINTS),
        keypoint_skeleton=tuple(("center", other) for other in SHAPE_KEYPOINTS[1:]),
        stuff_classes=("things", *TEXTURES),
        stuff_ids=(0, *range(_FIRST_STUFF_ID, _FIRST_STUFF_ID + len(TEXTURES))),
        palette=tuple(_PALETTE[c] for c in class_names),
    )


def _draw_sizes(
    seed: int, num_images: int, image_size: Sequence[int], max_image_size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the heights and the widths of all images, ``(N,)`` int64 each."""
    indices = np.arange(num_images)
    sides = []
    for axis, (low, high) in enumerate(zip(image_size, max_image_size)):
        fraction = hash_to_unit_interval(derive_seed(seed, axis), indices)
        sides.append(low + np.floor(fraction * (high - low + 1)).astype(np.int64))
    return sides[0], sides[1]


def _segments_info(scene: Scene) -> list[SegmentInfo]:
    """Return the background regions, unless objects cover them, and the objects."""
    num_regions = len(scene.textures)
    region_areas = np.bincount(scene.ids.reshape(-1), minlength=num_regions + 1)
    segments_info: list[SegmentInfo] = [
        {
            "id": region,
            "category_id": texture + 1,
            "isthing": False,
            "iscrowd": False,
            "area": int(region_areas[region]),
        }
        for region, texture in enumerate(scene.textures, start=1)
        if region_areas[region] > 0
    ]
    for i, class_index in enumerate(scene.classes.tolist()):
        segments_info.append(
            {
                "id": num_regions + 1 + i,
                "category_id": class_index,
                "isthing": True,
                "iscrowd": bool(scene.iscrowd[i]),
                "area": int(scene.areas[i]),
            }
        )
    return segments_info
