"""Any dataset in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydet.data.coco.flat_storage import FlatIntegers, FlatStrings
from hydet.data.coco.json_file import FEDERATED, CocoFile
from hydet.data.coco.panoptic import PanopticLabels
from hydet.data.datasets.dataset import BaseDataset
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record, Segment
from hydet.data.datasets.report import POLICIES, DataReport, Policy
from hydet.data.errors import DataError
from hydet.data.images.reading import read_image, read_labels

__all__ = ["CocoDataset"]

_PERSON = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
]
_PERSON_SIGMAS = tuple(
    thousandth / 1000 for thousandth in (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
)
_DEFAULT_SIGMA = 0.05


class CocoDataset(BaseDataset):
    """Images and annotations from a COCO-format JSON and a folder.

    Annotations are polygons or run-length codes (compressed or not), crowds included; boxes of five numbers
    (cx, cy, w, h, degrees) are rotated ones. Images are turned upright as their EXIF data says. If a file's size is
    that of the image before turning, its annotations belong to that image: it is then left as stored, and the report
    says so.

    What is broken in the JSON is found when the dataset is made, what is broken in an image when it is read;
    :meth:`report` tells both, :meth:`check` reads all images to find the rest. Boxes that reach over the border by
    a pixel at most count as rounded, not as broken.

    Args:
        json: the annotations.
        images: folder that the file names are relative to.
        class_names: the classes 0 ... K-1; None takes the file's categories in the order of their ids.
        policy: what to do about broken files and annotations: ``"drop"`` leaves them out, ``"clamp"`` repairs what
            can be (cuts boxes at the border, takes missing boxes from masks, leaves out broken polygons) and drops the
            rest, ``"raise"`` stops.
        keep_empty: keep images without any object; crowds do not count as objects.
        min_keypoints: leave out images whose objects have fewer labelled keypoints than this altogether.
        with_masks: read regions.
        with_keypoints: read keypoints; None reads them if the file's categories have any.
        keypoint_sigmas: tolerances for evaluation; by default COCO's for people, else what the file says or 0.05.
        keypoint_offset: added to x and y of labelled keypoints in records, but not in :meth:`to_coco`. COCO's keypoints
            are numbers of pixels, so 0.5 puts them at the pixels' centres; evaluation then takes it off again
            (``CocoEvaluator(keypoint_offset=...)``).
        keypoint_flip_pairs: pairs of names that change places in a mirror; by default those that differ in "left"
            and "right".
        ignore_other_categories: leave out categories that ``class_names`` does not have, instead of refusing the file.
        sem_seg: folder of label maps, PNG files named like the images.
        stuff_class_names: names of the semantic labels 0, 1, ...; with ``panoptic_json`` its stuff by name, after a
            name for all things, or None to take it in the order of its ids.
        panoptic_json: COCO panoptic annotations of the same images; semantic labels then follow from them, with 0 for
            all things.
        panoptic_images: their folder of PNG files; by default named like the JSON.
        name: for messages; by default the file's.

    Raises:
        DataError: if the file is missing or not in COCO's format, has categories that ``class_names`` lacks, or
            anything is broken and the policy is ``"raise"``.
        ValueError: for another policy.
    """

    def __init__(
        self,
        *,
        json: str | Path,
        images: str | Path,
        class_names: Sequence[str] | None = None,
        policy: Policy = "clamp",
        keep_empty: bool = True,
        min_keypoints: int = 0,
        with_masks: bool = True,
        with_keypoints: bool | None = None,
        keypoint_sigmas: Sequence[float] | None = None,
        keypoint_offset: float = 0.0,
        keypoint_flip_pairs: Sequence[Sequence[str]] | None = None,
        ignore_other_categories: bool = False,
        sem_seg: str | Path | None = None,
        stuff_class_names: Sequence[str] | None = None,
        panoptic_json: str | Path | None = None,
        panoptic_images: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"CocoDataset: policy must be one of {list(POLICIES)}, got {policy!r}")
        self.policy = policy
        self.keypoint_offset = keypoint_offset
        self.folder = Path(images)
        self._report = DataReport(str(json))
        file = CocoFile(Path(json), self.folder, policy=policy, report=self._report)
        classes, class_of = _classes(file, class_names, ignore_other_categories)
        keypoints = _keypoint_names(file, class_of, with_keypoints)
        builder = file.read_annotations(
            class_of,
            num_keypoints=len(keypoints) if keypoints else None,
            with_masks=with_masks,
        )
        flat = builder.build(len(file.images), num_keypoints=len(keypoints) if keypoints else None)
        self._annotations = flat
        self._kept = np.arange(len(file.images))
        if not keep_empty:
            self._kept = np.flatnonzero(flat.sum_of_images(~flat.iscrowd))
        if min_keypoints:
            if flat.keypoints is None:
                raise DataError(f"{json}: min_keypoints={min_keypoints}, but the dataset has no keypoints")
            labelled = flat.sum_of_images((flat.keypoints[..., 2] > 0).sum(axis=1))
            self._kept = self._kept[labelled[self._kept] >= min_keypoints]
        if len(self._kept) == 0:
            few = f" ({self._report.problems[0].message})" if self._report else ""
            raise DataError(f"{json}: no image is left to use{few}")
        self._names = FlatStrings.of([image.file_name.encode() for image in file.images])
        self._image_ids = np.array([image.id for image in file.images], dtype=np.int64)
        self._sizes = np.array([(image.height, image.width) for image in file.images], dtype=np.int64)
        self._with_masks = with_masks and bool((flat.polygon_range[-1] > 0) or (flat.codes.offsets[-1] > 0))
        self._federated = {
            key: FlatIntegers.of([image.federated.get(key, []) for image in file.images])
            for key in FEDERATED
            if any(key in image.federated for image in file.images)
        }
        self._frequency = {n: c["frequency"] for n, c in file.categories.items() if "frequency" in c}
        self._told: set[int] = set()
        self._sem_seg = None if sem_seg is None else Path(sem_seg)
        self._panoptic = None
        stuff: dict[str, Any] = {"stuff_classes": tuple(stuff_class_names or ())}
        if panoptic_json is not None:
            self._panoptic = PanopticLabels(panoptic_json, panoptic_images, list(classes), stuff_class_names)
            stuff = {
                "stuff_classes": self._panoptic.stuff_classes,
                "stuff_ids": self._panoptic.stuff_ids,
            }
        self.metadata = Metadata(
            name=name or Path(json).stem,
            thing_classes=tuple(classes),
            thing_ids=tuple(classes.values()),
            **_keypoint_metadata(file, class_of, keypoints, keypoint_sigmas, keypoint_flip_pairs),
            **stuff,
        )

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64, width over height as the JSON has them."""
        sizes = self._sizes[self._kept]
        return sizes[:, 1] / sizes[:, 0]

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64, as the JSON has them."""
        return self._image_ids[self._kept]

    def classes_of_images(self) -> list[list[int]]:
        """For each image the classes of its objects, crowds excluded; see :func:`hydet.data.repeat_factors`."""
        flat = self._annotations
        result = []
        for place in self._kept.tolist():
            rows = slice(*flat.image_range[place : place + 2].tolist())
            result.append(np.unique(flat.classes[rows][~flat.iscrowd[rows]]).tolist())
        return result

    def report(self) -> DataReport:
        """What was wrong so far; problems found by worker processes are in theirs."""
        return self._report

    def check(self) -> DataReport:
        """Read every image, and report those that are broken instead of raising."""
        for index in range(len(self)):
            try:
                self[index]
            except DataError as error:
                self._report.add("unreadable_image", str(error), action="unusable")
        return self._report

    def __getitem__(self, index: int) -> Record:
        """Image and annotations.

        Raises:
            IndexError: if there is no such image.
            DataError: if the image cannot be read, or its size differs from the JSON's and the policy is not
                ``"clamp"``.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        place = int(self._kept[index])
        name = self._names[place].decode()
        image = self._image(place, self.folder / name)
        height, width = int(image.shape[1]), int(image.shape[2])
        flat = self._annotations
        own = flat.of_image(place)
        rows = slice(own.start, own.stop)
        boxes = flat.boxes[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, [width, height, width, height])
        record = Record(
            image=image,
            image_id=int(self._image_ids[place]),
            file_name=name,
            height=height,
            width=width,
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            classes=torch.from_numpy(flat.classes[rows].copy()),
            iscrowd=torch.from_numpy(flat.iscrowd[rows].copy()),
            annotation_ids=torch.from_numpy(flat.ids[rows].copy()),
            segments=[self._segment(a, place, (height, width)) for a in own] if self._with_masks else None,
            keypoints=None if flat.keypoints is None else self._keypoints(flat.keypoints[rows]),
            rotated_boxes=None
            if flat.rotated_boxes is None
            else torch.from_numpy(flat.rotated_boxes[rows].copy()),
            metadata=self.metadata,
        )
        self._add_labels(record)
        return record

    def _image(self, place: int, path: Path) -> Tensor:
        image = read_image(path)
        expected = tuple(self._sizes[place].tolist())
        if tuple(image.shape[1:]) == expected:
            return image
        if tuple(image.shape[1:]) == expected[::-1]:
            stored = read_image(path, orient=False)
            if tuple(stored.shape[1:]) == expected:
                message = f"{path}: the JSON has its size before it is turned upright"
                self._tell(place, "not_upright", message, "left as stored")
                return stored
        height, width = image.shape[1:]
        message = (
            f"{path}: the image has {width} x {height} pixels, the JSON says {expected[1]} x {expected[0]}"
        )
        if self.policy != "clamp":
            raise DataError(message)
        self._tell(place, "other_size", message, "clamped")
        return image

    def _tell(self, place: int, kind: str, message: str, action: str) -> None:
        if place not in self._told:
            self._told.add(place)
            self._report.add(kind, message, action=action)

    def _segment(self, annotation: int, place: int, size: tuple[int, int]) -> Segment:
        code = self._annotations.codes[annotation]
        if code:
            height, width = self._sizes[place].tolist()
            return {"size": [height, width], "counts": code} if (height, width) == size else None
        return self._annotations.polygons(annotation) or None

    def _keypoints(self, points: np.ndarray) -> Tensor:
        points = points.copy()
        points[..., :2] += self.keypoint_offset * (points[..., 2:] > 0)
        return torch.from_numpy(points)

    def _add_labels(self, record: Record) -> None:
        size = (record.height, record.width)
        if self._panoptic is not None:
            ids, record.segments_info, labels = self._panoptic.read(record.image_id, record.file_name)
            _check_size(ids, size, record.file_name, "panoptic map")
            record.panoptic_seg = torch.from_numpy(ids)
            record.sem_seg = torch.from_numpy(labels)
        if self._sem_seg is not None:
            path = self._sem_seg / Path(record.file_name).with_suffix(".png")
            labels = read_labels(path)
            if labels.ndim != 2:
                raise DataError(f"{path}: a label map has one number a pixel, got shape {labels.shape}")
            _check_size(labels, size, str(path), "label map")
            labels = labels if labels.dtype == np.uint8 else labels.astype(np.int64)
            record.sem_seg = torch.from_numpy(labels)

    def to_coco(self) -> dict[str, Any]:
        """The annotations in use as COCO's JSON has them, with the file's ids.

        Annotation 0 gets another id: COCO's evaluation takes 0 for "no match". Objects without a region get an empty
        one where the dataset has regions. What other evaluations go by is there if the file has it: ``ignore`` of
        objects (VOC's difficult ones); LVIS's ``neg_category_ids`` and ``not_exhaustive_category_ids`` of images and
        ``frequency`` of categories.
        """
        flat = self._annotations
        images, annotations = [], []
        spare = int(flat.ids.max()) + 1 if len(flat.ids) else 1
        for place in self._kept.tolist():
            height, width = self._sizes[place].tolist()
            image_id = int(self._image_ids[place])
            name = self._names[place].decode()
            lists = {key: ids[place] for key, ids in self._federated.items()}
            images.append({"id": image_id, "file_name": name, "height": height, "width": width, **lists})
            for a in flat.of_image(place):
                entry: dict[str, Any] = {
                    "id": int(flat.ids[a]) or spare,
                    "image_id": image_id,
                    "category_id": self.metadata.thing_ids[flat.classes[a]],
                    "bbox": flat.boxes[a].tolist(),
                    "area": float(flat.areas[a]),
                    "iscrowd": int(flat.iscrowd[a]),
                }
                if flat.ignore[a]:
                    entry["ignore"] = 1
                if self._with_masks:
                    entry["segmentation"] = _written(self._segment(a, place, (height, width)), height, width)
                if flat.keypoints is not None:
                    entry["keypoints"] = flat.keypoints[a].astype(np.float64).round(3).reshape(-1).tolist()
                    entry["num_keypoints"] = int((flat.keypoints[a, :, 2] > 0).sum())
                if flat.rotated_boxes is not None:
                    entry["rotated_bbox"] = flat.rotated_boxes[a].tolist()
                annotations.append(entry)
        return {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": number, "name": name}
                | ({"keypoints": list(self.metadata.keypoint_names)} if flat.keypoints is not None else {})
                | ({"frequency": self._frequency[number]} if number in self._frequency else {})
                for number, name in zip(self.metadata.thing_ids, self.metadata.thing_classes)
            ],
        }


def _written(segment: Segment, height: int, width: int) -> Any:
    if segment is None:
        return {"size": [height, width], "counts": [height * width]}
    if isinstance(segment, Mapping):
        return {"size": segment["size"], "counts": segment["counts"].decode()}
    return [polygon.tolist() for polygon in segment]


def _check_size(labels: np.ndarray, size: tuple[int, int], who: str, what: str) -> None:
    if labels.shape != size:
        height, width = labels.shape
        raise DataError(f"{who}: the {what} has {width} x {height} pixels, the image {size[1]} x {size[0]}")


def _classes(
    file: CocoFile, class_names: Sequence[str] | None, ignore_others: bool
) -> tuple[dict[str, int], dict[int, int]]:
    """Category id of each class name in order, and class of each category id."""
    in_file = {str(category["name"]): number for number, category in file.categories.items()}
    if class_names is None:
        names = list(in_file)
    else:
        names = [str(name) for name in class_names]
        others = [name for name in in_file if name not in names]
        if others and not ignore_others:
            raise DataError(
                f"{file.path}: category {others[0]!r} (id {in_file[others[0]]}) is none of the {len(names)} class names"
                f"{f', nor are {len(others) - 1} more' if len(others) > 1 else ''}; "
                "set data.class_names=null to take them from the file"
            )
        if not any(name in in_file for name in names):
            raise DataError(f"{file.path}: has none of the classes {names[:5]}")
    spare = max(file.categories) + 1
    ids: dict[str, int] = {}
    for name in names:
        if name not in in_file:
            in_file[name], spare = spare, spare + 1  # a class that this file happens not to have
        ids[name] = in_file[name]
    return ids, {ids[name]: i for i, name in enumerate(names)}


def _keypoint_names(file: CocoFile, class_of: Mapping[int, int], wanted: bool | None) -> tuple[str, ...]:
    if wanted is False:
        return ()
    found = {
        tuple(category["keypoints"]): str(category["name"])
        for number, category in file.categories.items()
        if number in class_of and category.get("keypoints")
    }
    if len(found) > 1:
        a, b = list(found.values())[:2]
        raise DataError(
            f"{file.path}: categories {a!r} and {b!r} have different keypoints; "
            "choose one by class_names, or set with_keypoints=false"
        )
    if not found and wanted:
        raise DataError(f"{file.path}: keypoints are asked for, but no category has any")
    return next(iter(found), ())


def _keypoint_metadata(
    file: CocoFile,
    class_of: Mapping[int, int],
    names: tuple[str, ...],
    sigmas: Sequence[float] | None,
    flip_pairs: Sequence[Sequence[str]] | None,
) -> dict[str, Any]:
    if not names:
        return {}
    category = next(c for n, c in file.categories.items() if n in class_of and c.get("keypoints"))
    if sigmas is None:
        sigmas = _PERSON_SIGMAS if list(names) == _PERSON else category.get("keypoint_sigmas")
    skeleton = [
        (names[a - 1], names[b - 1])
        for a, b in category.get("skeleton") or ()
        if 0 < a <= len(names) and 0 < b <= len(names)
    ]
    return {
        "keypoint_names": names,
        "keypoint_sigmas": tuple(sigmas) if sigmas else (_DEFAULT_SIGMA,) * len(names),
        "keypoint_flip_pairs": tuple(
            (str(a), str(b)) for a, b in (_mirror_pairs(names) if flip_pairs is None else flip_pairs)
        ),
        "keypoint_skeleton": tuple(skeleton),
    }


def _mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names that differ in left and right."""
    pairs = []
    for name in names:
        for left, right in (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT")):
            other = name.replace(left, right)
            if other != name and other in names:
                pairs.append((name, other))
    return pairs
