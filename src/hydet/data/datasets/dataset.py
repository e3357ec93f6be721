"""The dataset interface, and the defaults of a dataset that defines only its records."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from hydet.data.datasets.coco_format import CocoJson, records_to_coco
from hydet.data.datasets.file_ids import FileIds
from hydet.data.datasets.labels import Label
from hydet.data.datasets.metadata import Metadata
from hydet.data.datasets.record import Record
from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError

__all__ = ["BaseDataset", "DetectionDataset", "RecordSource", "as_detection_dataset"]


class RecordSource(Protocol):
    """The minimal interface of a dataset: a length and records.

    :func:`as_detection_dataset` adds defaults for the other members of :class:`DetectionDataset`.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Return the record of one image."""
        ...


@runtime_checkable
class DetectionDataset(Protocol):
    """The interface of datasets for loaders, samplers, evaluators and commands.

    To implement it, derive from :class:`BaseDataset`, which has defaults for everything but the records and
    ``metadata``.
    """

    @property
    def metadata(self) -> Metadata:
        """Names and category ids of classes, keypoints and semantic labels."""
        ...

    @property
    def policy(self) -> Policy:
        """Treatment of an image that cannot be read: ``"raise"`` stops, any other policy skips or replaces it."""
        ...

    @property
    def keypoint_offset(self) -> float:
        """Keypoints of records minus those of :meth:`to_coco`, in x and y, in pixels."""
        ...

    @property
    def has_proposals(self) -> bool:
        """True if every record has ``proposals``, for models without a proposal generator."""
        ...

    @property
    def file_ids(self) -> FileIds:
        """Ids in the annotation file that differ from those of the records, for files of results."""
        ...

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64 image ids, in the order of the records."""
        ...

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64 width divided by height, in the order of the records."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Return the record of one image.

        Raises:
            IndexError: if ``index`` is out of range.
            DataError: if the image or its labels cannot be read.
        """
        ...

    @property
    def labels(self) -> frozenset[Label] | None:
        """Kinds of labels that the records have beside boxes; None if only the records show this."""
        ...

    def require(self, labels: Collection[Label]) -> None:
        """Prepare for a model that needs some kinds of labels, as the policy demands.

        The dataset may drop objects that lack them, before its images are counted or read.

        Raises:
            DataError: if objects lack them and the policy is ``"raise"``.
        """
        ...

    def classes_of_images(self) -> list[list[int]]:
        """Return the distinct classes in each image, with crowds, for :func:`hydet.data.repeat_factors`."""
        ...

    def report(self) -> DataReport:
        """Return the problems found so far. Loaders add the images that they cannot read."""
        ...

    def to_coco(self) -> CocoJson:
        """Return the ground truth as COCO's JSON, with the category ids of ``metadata``."""
        ...


class BaseDataset(ABC):
    """Base class of datasets. Subclasses define ``__len__``, ``__getitem__`` and ``metadata``.

    The default ``image_ids``, ``aspect_ratios``, ``classes_of_images`` and ``to_coco`` read every record once, with a
    warning, because only the records contain this information. Override them if it is available without reading images.

    Attributes:
        metadata: names and category ids; set by the subclass.
        policy: treatment of images that cannot be read; see :class:`DetectionDataset`.
        keypoint_offset: keypoints of records minus those of :meth:`to_coco`, in x and y, in pixels.
        has_proposals: True if every record has ``proposals``.
        labels: kinds of labels of the records; None if they are not known before a record is read.
        file_ids: ids in the annotation file that differ from those of the records.

    Example::

        class MyDataset(hydet.data.BaseDataset):
            metadata = hydet.data.Metadata(thing_classes=("cat", "dog"))

            def __len__(self):
                return 100

            def __getitem__(self, index):
                return hydet.data.Record(...)
    """

    metadata: Metadata
    policy: Policy = "raise"
    keypoint_offset: float = 0.0
    has_proposals: bool = False
    labels: frozenset[Label] | None = None
    file_ids: FileIds = FileIds()
    _report: DataReport | None = None
    _summary: _Summary | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int, /) -> Record:
        """Return the record of one image; see :class:`DetectionDataset`."""

    @property
    def image_ids(self) -> np.ndarray:
        """``(N,)`` int64 image ids; -1 for an image that cannot be read."""
        return self._summarize().image_ids

    @property
    def aspect_ratios(self) -> np.ndarray:
        """``(N,)`` float64 width divided by height; 1 for an image that cannot be read."""
        return self._summarize().aspect_ratios

    def require(self, labels: Collection[Label]) -> None:
        """Prepare for a model that needs some kinds of labels; the default keeps all objects."""
        return

    def classes_of_images(self) -> list[list[int]]:
        """Return the distinct classes in each image, with crowds."""
        return self._summarize().classes

    def report(self) -> DataReport:
        """Return the problems found so far. Each worker process has its own report."""
        if self._report is None:
            self._report = DataReport(self.metadata.name or self._type_name())
        return self._report

    def check(self) -> DataReport:
        """Read every record and report those that cannot be read instead of raising."""
        for index in range(len(self)):
            try:
                self[index]
            except DataError as error:
                self.report().add("unreadable_image", str(error), action="unusable")
        return self.report()

    def to_coco(self) -> CocoJson:
        """Return the ground truth of all readable records as COCO's JSON."""
        records = (record for record in self._readable_records() if record is not None)
        return records_to_coco(records, self.metadata, keypoint_offset=self.keypoint_offset)

    def _type_name(self) -> str:
        return type(self).__name__

    def _readable_records(self) -> Iterator[Record | None]:
        """Yield every record, or None in place of one that cannot be read if the policy allows it."""
        for index in range(len(self)):
            try:
                record = self[index]
            except DataError:
                if self.policy == "raise":
                    raise
                yield None
                continue
            if not isinstance(record, Record):
                raise TypeError(
                    f"{self._type_name()}: item {index} must be a hydet.data.Record, got {type(record).__name__}"
                )
            yield record

    def _summarize(self) -> _Summary:
        if self._summary is None:
            warnings.warn(
                f"{self._type_name()} does not define image_ids, aspect_ratios or classes_of_images: "
                f"reading all {len(self)} images once to find them",
                stacklevel=3,
            )
            image_ids, aspect_ratios, classes = [], [], []
            for record in self._readable_records():
                image_ids.append(-1 if record is None else record.image_id)
                aspect_ratios.append(1.0 if record is None else record.width / record.height)
                classes.append([] if record is None else record.classes.unique().tolist())
            self._summary = _Summary(
                np.array(image_ids, dtype=np.int64), np.array(aspect_ratios, dtype=np.float64), classes
            )
        return self._summary


class _Summary(NamedTuple):
    """Properties of all images, which the defaults of :class:`BaseDataset` collect in one pass."""

    image_ids: np.ndarray  # (N,) int64
    aspect_ratios: np.ndarray  # (N,) float64
    classes: list[list[int]]


def as_detection_dataset(dataset: RecordSource) -> DetectionDataset:
    """Return ``dataset`` itself if it implements :class:`DetectionDataset`, otherwise a wrapper with defaults.

    Loaders, samplers and evaluators call this function once, so that a class with ``__len__``, ``__getitem__`` and
    ``metadata`` is enough, and no other code has to check which members a dataset defines.

    Args:
        dataset: any object with records. The wrapper uses the members of :class:`DetectionDataset` that the object has,
            and the defaults of :class:`BaseDataset` in place of the others. A missing ``metadata`` is empty.
    """
    # BaseDataset comes first: isinstance with a protocol evaluates properties, whose defaults read all records.
    if isinstance(dataset, BaseDataset) or isinstance(dataset, DetectionDataset):  # noqa: SIM101
        return dataset
    return _AdaptedDataset(dataset)


class _AdaptedDataset(BaseDataset):
    """Wraps an object and adds the defaults of :class:`BaseDataset` for the members that it lacks."""

    def __init__(self, dataset: RecordSource) -> None:
        self.dataset = dataset
        self.metadata = getattr(dataset, "metadata", Metadata())
        self.policy = getattr(dataset, "policy", self.policy)
        self.keypoint_offset = getattr(dataset, "keypoint_offset", self.keypoint_offset)
        self.has_proposals = getattr(dataset, "has_proposals", self.has_proposals)
        self.labels = getattr(dataset, "labels", self.labels)
        self.file_ids = getattr(dataset, "file_ids", self.file_ids)

    def _type_name(self) -> str:
        return type(self.dataset).__name__

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Record:
        return self.dataset[index]

    @property
    def image_ids(self) -> np.ndarray:
        values = getattr(self.dataset, "image_ids", None)
        return super().image_ids if values is None else np.asarray(values)

    @property
    def aspect_ratios(self) -> np.ndarray:
        values = getattr(self.dataset, "aspect_ratios", None)
        return super().aspect_ratios if values is None else np.asarray(values)

    def require(self, labels: Collection[Label]) -> None:
        method = getattr(self.dataset, "require", None)
        if method is not None:
            method(labels)

    def classes_of_images(self) -> list[list[int]]:
        method = getattr(self.dataset, "classes_of_images", None)
        return super().classes_of_images() if method is None else method()

    def report(self) -> DataReport:
        method = getattr(self.dataset, "report", None)
        return method() if callable(method) else super().report()

    def to_coco(self) -> CocoJson:
        method = getattr(self.dataset, "to_coco", None)
        return super().to_coco() if method is None else method()
