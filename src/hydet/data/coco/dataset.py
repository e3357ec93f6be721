"""Datasets in COCO's JSON format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hydet.data.coco.annotation_reader import read_annotations
from hydet.data.coco.classes import ClassSelection, select_classes
from hydet.data.coco.crowds import CROWD_SETTINGS, CrowdSetting, resolve_crowds
from hydet.data.coco.flat_storage import FlatAnnotations, FlatImages
from hydet.data.coco.ground_truth import annotations_to_coco
from hydet.data.coco.image_filter import ImageFilter
from hydet.data.coco.json_file import read_coco_file
from hydet.data.coco.keypoint_layout import KeypointLayout, read_keypoint_layout
from hydet.data.coco.labeled_frames import LabeledFrames
from hydet.data.coco.missing_masks import drop_without_mask
from hydet.data.coco.object_scaling import ObjectScaling
from hydet.data.coco.panoptic import PanopticLabels
from hydet.data.coco.problems import ProblemHandler
from hydet.data.coco.semantic import check_num_labels, read_semantic_labels
from hydet.data.coco.upright_labels import correct_rotated_sizes
from hydet.data.datasets.coco_format import CocoJson
from hydet.data.datasets.dataset import BaseDataset
from hydet.data.datasets.file_ids import FileIds
from hydet.data.datasets.labels import Label
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record
from hydet.data.datasets.report import POLICIES, DataReport, Policy
from hydet.data.images.reading import MAX_PIXELS, ImageReader
from hydet.data.images.value_range import ValueRange

__all__ = ["CocoDataset"]


class CocoDataset(BaseDataset):
    """Images and annotations from a COCO JSON file and an image folder.

    Regions may be polygons or run-length codes (compressed or not); crowds are included. A ``bbox`` of five numbers
    (cx, cy, w, h, degrees) is a rotated box. Images are rotated upright according to their EXIF data. If the size in
    the JSON is that of the stored image before this rotation, its annotations belong to the stored image, unless they
    fit only the upright one. An image with the aspect ratio of the JSON but another size was resized after labeling:
    its labels are scaled. The report says so in each case.

    The constructor checks the JSON file; an image is checked when it is read. :meth:`report` lists the problems of both,
    and :meth:`check` reads all images. Boxes that exceed the image by at most one pixel are not a problem,
    because files have rounded numbers.

    Whatever the policy, except ``"raise"``: boxes are clipped at the border of the image, repeated ids are renumbered,
    and broken masks and keypoints are left out. Objects without a mask stay, until :meth:`require` says that a model
    needs masks.

    Args:
        json: the annotation file.
        images: folder that the file names are relative to.
        class_names: names of the classes 0 ... K-1; None takes the categories of the file in ascending order of ids.
        policy: treatment of broken files and annotations: ``"drop"`` leaves out objects with a broken box, and for
            models that need masks, objects without a complete one; ``"clamp"`` repairs what can be repaired (takes
            broken boxes from masks, keeps the rest of a mask with a broken polygon) and drops the rest; ``"raise"``
            stops.
        crowd: meaning of ``iscrowd``: ``"ignore"`` takes crowds as groups, which training ignores, as COCO does;
            ``"objects"`` takes them as objects. ``"auto"`` does so if most annotations are crowds, because some tools
            write the flag for every mask that was drawn with a brush.
        keep_empty: keep images without objects. Crowds do not count as objects.
        min_keypoints: drop images whose objects have fewer labeled keypoints in total.
        with_masks: read regions.
        with_keypoints: read keypoints; None reads them if there are any. Keypoints without names get numbers.
        keypoint_sigmas: tolerances for evaluation; by default those of COCO for people, those of the file, or 0.05.
        keypoint_offset: added to x and y of labeled keypoints in records, but not in :meth:`to_coco`. COCO's keypoints
            are pixel indices, so 0.5 moves them to the pixel centers; ``CocoEvaluator`` subtracts it again.
        keypoint_flip_pairs: pairs of names to swap in a mirrored image; by default names that differ in a word for the
            side, such as "left" and "right" or "L" and "R". If there are none, ``InputMapper`` mirrors no images of
            keypoints, and the report says so; an empty list declares that no keypoint has a side.
        ignore_other_categories: leave out objects of categories that are not in ``class_names``, instead of raising an
            error.
        rotated_from_polygons: read polygons of four points as rotated boxes; None does so if all objects have such a
            polygon, and one of them is not an upright rectangle.
        sem_seg: folder of semantic label maps, PNG files with the names of the images.
        stuff_class_names: names of the semantic labels 0, 1, ... With ``panoptic_json``, a name for all things
            followed by the names of its stuff categories; None takes these in ascending order of ids.
        panoptic_json: COCO panoptic annotations of the same images. Semantic labels are derived from them, with 0 for
            all things.
        panoptic_images: folder of their PNG files; by default the path of ``panoptic_json`` without its suffix.
        value_range: values that become 0 and 255 in images with more than 8 bits; see :class:`hydet.data.ImageReader`.
        max_pixels: largest image that is read.
        name: name for messages; by default that of the JSON file.

    Raises:
        DataError: if the file is missing or not in COCO's format, has categories that are not in ``class_names``, no
            image can be used, or anything is broken and the policy is ``"raise"``.
        ValueError: if ``policy``, ``crowd`` or ``value_range`` is unknown.
    """

    def __init__(
        self,
        *,
        json: str | Path,
        images: str | Path,
        class_names: Sequence[str] | None = None,
        policy: Policy = "clamp",
        crowd: CrowdSetting = "auto",
        keep_empty: bool = True,
        min_keypoints: int = 0,
        with_masks: bool = True,
        with_keypoints: bool | None = None,
        keypoint_sigmas: Sequence[float] | None = None,
        keypoint_offset: float = 0.0,
        keypoint_flip_pairs: Sequence[Sequence[str]] | None = None,
        ignore_other_categories: bool = False,
        rotated_from_polygons: bool | None = None,
        sem_seg: str | Path | None = None,
        stuff_class_names: Sequence[str] | None = None,
        panoptic_json: str | Path | None = None,
        panoptic_images: str | Path | None = None,
        value_range: ValueRange = "auto",
        max_pixels: int = MAX_PIXELS,
        name: str | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"CocoDataset: policy must be one of {list(POLICIES)}, got {policy!r}")
        if crowd not in CROWD_SETTINGS:
            raise ValueError(f"CocoDataset: crowd must be one of {list(CROWD_SETTINGS)}, got {crowd!r}")
        self.policy = policy
        self.keypoint_offset = keypoint_offset
        self.folder = Path(images)
        self._report = DataReport(str(json))
        problems = ProblemHandler(Path(json), policy=policy, report=self._report)
        file = read_coco_file(Path(json), self.folder, problems=problems)
        correct_rotated_sizes(file, self.folder, problems=problems)
        classes = select_classes(
            file, class_names, ignore_other_categories=ignore_other_categories, problems=problems
        )
        keypoints = read_keypoint_layout(
            file,
            classes.class_of,
            with_keypoints=with_keypoints,
            sigmas=keypoint_sigmas,
            flip_pairs=keypoint_flip_pairs,
            problems=problems,
        )
        num_keypoints = len(keypoints.names) or None
        annotations = read_annotations(
            file,
            class_of=classes.class_of,
            num_keypoints=num_keypoints,
            with_masks=with_masks,
            rotated_from_polygons=rotated_from_polygons,
            problems=problems,
        )
        self._annotations = FlatAnnotations.of(
            resolve_crowds(annotations, crowd=crowd, problems=problems),
            num_images=len(file.images),
            num_keypoints=num_keypoints,
        )
        self._images = FlatImages.of(file.images)
        self._frames = LabeledFrames(
            self.folder,
            self._images,
            policy=policy,
            reader=ImageReader(value_range=value_range, max_pixels=max_pixels),
            report=self._report,
        )
        self._image_filter = ImageFilter(keep_empty=keep_empty, min_keypoints=min_keypoints)
        self._image_indices = self._image_filter.select(self._annotations, self._report)
        self._has_regions = with_masks and self._annotations.has_regions()
        self._frequencies = {i: c.frequency for i, c in file.categories.items() if c.frequency}
        self._sem_seg_folder = None if sem_seg is None else Path(sem_seg)
        check_num_labels(len(stuff_class_names or ()), str(json))
        self._panoptic = (
            None
            if panoptic_json is None
            else PanopticLabels(
                panoptic_json,
                panoptic_images,
                classes.names,
                stuff_class_names,
                image_ids=file.image_ids,
                problems=ProblemHandler(Path(panoptic_json), policy=policy, report=self._report),
            )
        )
        self.labels = self._find_labels()
        self.file_ids = FileIds(images=file.image_ids.in_file, categories=file.category_ids.in_file)
        self.metadata = _make_metadata(
            name or Path(json).stem,
            classes,
            keypoints,
            stuff_classes=tuple(stuff_class_names or ())
            if self._panoptic is None
            else self._panoptic.stuff_classes,
            stuff_ids=() if self._panoptic is None else self._panoptic.stuff_ids,
        )

    def __len__(self) -> int:
        return len(self._image_indices)

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64 width divided by height, as in the JSON."""
        sizes = self._images.sizes[self._image_indices]  # (N, 2) as (height, width)
        return np.asarray(sizes[:, 1] / sizes[:, 0])

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64 image ids of the JSON."""
        return np.asarray(self._images.ids[self._image_indices])

    def _find_labels(self) -> frozenset[Label]:
        """Return the kinds of labels of the records, beside boxes."""
        present: dict[Label, bool] = {
            "masks": self._has_regions,
            "keypoints": self._annotations.keypoints is not None,
            "rotated_boxes": self._annotations.rotated_boxes is not None,
            "semantic": self._panoptic is not None or self._sem_seg_folder is not None,
            "panoptic": self._panoptic is not None,
        }
        return frozenset(label for label, is_present in present.items() if is_present)

    def require(self, labels: Collection[Label]) -> None:
        """Drop objects without a mask if a model needs masks and the policy is ``"drop"``.

        Raises:
            DataError: if an object has no mask and the policy is ``"raise"``, or no image is left.
        """
        if "masks" in labels and self._has_regions:
            self._annotations = drop_without_mask(
                self._annotations, self._images, policy=self.policy, report=self.report()
            )
            self._image_indices = self._image_filter.select(self._annotations, self.report())

    def classes_of_images(self) -> list[list[int]]:
        """Return the distinct classes in each image, with crowds; see :func:`hydet.data.repeat_factors`."""
        annotations = self._annotations
        result = []
        for image in self._image_indices.tolist():
            rows = slice(*annotations.image_range[image : image + 2].tolist())
            result.append(np.unique(annotations.classes[rows]).tolist())
        return result

    def __getitem__(self, index: int, /) -> Record:
        """Return an image and its annotations.

        Raises:
            IndexError: if ``index`` is out of range.
            DataError: if the image cannot be read, or its labels do not fit it; see :class:`LabeledFrames`.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for a dataset of {len(self)} images")
        image_index = int(self._image_indices[index])
        name = self._images.name(image_index)
        image, scaling = self._frames.read(image_index)
        height, width = scaling.new
        annotations = self._annotations
        row_range = annotations.of_image(image_index)
        rows = slice(row_range.start, row_range.stop)
        boxes = scaling.boxes(annotations.boxes[rows]).copy()  # (n, 4) as (x, y, w, h)
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, [width, height, width, height])
        record = Record(
            image=image,
            image_id=int(self._images.ids[image_index]),
            file_name=name,
            height=height,
            width=width,
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            classes=torch.from_numpy(annotations.classes[rows].copy()),
            iscrowd=torch.from_numpy(annotations.iscrowd[rows].copy()),
            annotation_ids=torch.from_numpy(annotations.ids[rows].copy()),
            metadata=self.metadata,
        )
        if self._has_regions:
            segments = (annotations.segment(row, scaling.old) for row in row_range)
            record.segments = [scaling.segment(segment) for segment in segments]
        if annotations.keypoints is not None:
            record.keypoints = self._shift_keypoints(annotations.keypoints[rows], scaling)
        if annotations.rotated_boxes is not None:
            rotated_boxes = scaling.rotated_boxes(annotations.rotated_boxes[rows])
            record.rotated_boxes = torch.from_numpy(rotated_boxes.copy())
        self._add_label_maps(record)
        return record

    def _shift_keypoints(self, keypoints: np.ndarray, scaling: ObjectScaling) -> Tensor:
        """Scale labeled keypoints ``(n, K, 3)``, and add ``keypoint_offset``."""
        shifted = scaling.keypoints(keypoints, offset=self.keypoint_offset).copy()
        shifted[..., :2] += self.keypoint_offset * (keypoints[..., 2:] > 0)
        return torch.from_numpy(shifted)

    def _add_label_maps(self, record: Record) -> None:
        size = (record.height, record.width)
        if self._panoptic is not None:
            panoptic = self._panoptic.read(record.image_id, record.file_name, size)
            record.panoptic_seg = torch.from_numpy(panoptic.segment_ids)
            record.segments_info = panoptic.segments_info
            record.sem_seg = torch.from_numpy(panoptic.sem_seg)
        if self._sem_seg_folder is not None:
            num_labels = len(self.metadata.stuff_classes) or None
            labels = read_semantic_labels(self._sem_seg_folder, record.file_name, size, num_labels=num_labels)
            record.sem_seg = torch.from_numpy(labels)

    def to_coco(self) -> CocoJson:
        """Return the annotations in use as COCO's JSON, with the ids of the file.

        Annotation 0 gets an unused id, because COCO's evaluation reads the id 0 as "no match". Objects without a region
        get an empty one if the dataset has regions. Fields for other evaluations are included if the file has them:
        ``ignore`` of objects (VOC's difficult ones); LVIS's ``neg_category_ids`` and ``not_exhaustive_category_ids`` of
        images and ``frequency`` of categories.
        """
        return annotations_to_coco(
            self._annotations,
            self._images,
            image_indices=self._image_indices.tolist(),
            metadata=self.metadata,
            with_masks=self._has_regions,
            frequencies=self._frequencies,
            scaling_of=self._frames.scaling,
            keypoint_offset=self.keypoint_offset,
        )


def _make_metadata(
    name: str,
    classes: ClassSelection,
    keypoints: KeypointLayout,
    *,
    stuff_classes: tuple[str, ...],
    stuff_ids: tuple[int, ...],
) -> Metadata:
    return Metadata(
        name=name,
        thing_classes=classes.names,
        thing_ids=classes.category_ids,
        keypoint_names=keypoints.names,
        keypoint_flip_pairs=keypoints.flip_pairs,
        mirrors_keypoints=keypoints.can_mirror,
        keypoint_sigmas=keypoints.sigmas,
        keypoint_skeleton=keypoints.skeleton,
        stuff_classes=stuff_classes,
        stuff_ids=stuff_ids,
    )
