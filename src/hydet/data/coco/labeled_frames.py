"""The frame of the labels of each image: whether the image is turned upright, and whether the labels must be scaled."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from hydet.data.coco.flat_storage import FlatImages
from hydet.data.coco.object_scaling import ObjectScaling
from hydet.data.datasets.report import DataReport, Policy
from hydet.data.errors import DataError
from hydet.data.images.reading import ImageReader, read_image_header

__all__ = ["LabeledFrames"]

Size = tuple[int, int]  # (height, width) in pixels


class _Frame(NamedTuple):
    """How to read an image so that its labels fit.

    Args:
        size: (height, width) of the image as it is read.
        orient: turn the image upright as its EXIF orientation says.
    """

    size: Size
    orient: bool


class LabeledFrames:
    """Reads images in the frame of their labels, and finds the scale of the labels.

    Tools write the size of the stored image or that of the upright one. If neither is the size in the JSON, the image
    may have been resized after labeling: with the same aspect ratio, the labels are scaled. With another one, the
    policy ``"clamp"`` stretches the labels, and ``"drop"`` refuses the image, because it may have been cropped or
    confused with another one. The policy ``"raise"`` refuses both.

    Args:
        folder: image folder.
        images: images of the file.
        policy: see above.
        reader: reads images.
        report: receives one message per image that is not as the JSON says.
    """

    def __init__(
        self, folder: Path, images: FlatImages, *, policy: Policy, reader: ImageReader, report: DataReport
    ) -> None:
        self.folder = folder
        self.images = images
        self.policy = policy
        self.reader = reader
        self.report = report
        self._reported: set[tuple[int, str]] = set()

    def read(self, index: int) -> tuple[Tensor, ObjectScaling]:
        """Read an image.

        Returns:
            ``(3, H, W)`` uint8 RGB, and the scaling of its labels.

        Raises:
            DataError: if the image cannot be read, or its labels do not fit it.
        """
        path = self.folder / self.images.name(index)
        image = self.reader(path)
        expected, upright = self.images.size(index), _size_of(image)
        if upright == expected:
            return image, ObjectScaling(expected, upright)
        frame = self._choose(expected, upright, read_image_header(path).stored_size)
        if frame is None:
            raise DataError(
                f"{path}: {_describe(expected, upright)}, so its labels do not fit; "
                + (
                    "export the labels for the resized images, or set policy=drop to scale them"
                    if self.policy == "raise"
                    else "it has another aspect ratio, so it was cropped, stretched or confused with another image; "
                    "policy=clamp stretches the labels"
                )
            )
        if not frame.orient:
            image = self.reader(path, orient=False)
            message = f"{path}: the JSON has the size of the image before its EXIF rotation"
            self._report_once(index, "not_upright", message, "not rotated")
        if frame.size != expected:
            message = f"{path}: {_describe(expected, frame.size)}"
            self._report_once(index, "other_size", message, "labels scaled")
        return image, ObjectScaling(expected, frame.size)

    def scaling(self, index: int) -> ObjectScaling:
        """Return the scaling of the labels of an image from its header; none if the image cannot be read."""
        expected = self.images.size(index)
        try:
            header = read_image_header(self.folder / self.images.name(index))
        except DataError:
            return ObjectScaling(expected, expected)
        frame = self._choose(expected, header.upright_size, header.stored_size)
        return ObjectScaling(expected, expected if frame is None else frame.size)

    def _choose(self, expected: Size, upright: Size, stored: Size) -> _Frame | None:
        """Return the frame for labels of an image that has the size ``expected`` in the JSON, or None to refuse."""
        for size, orient in ((upright, True), (stored, False)):
            if size == expected:
                return _Frame(size, orient)
        if self.policy == "raise":
            return None
        for size, orient in ((upright, True), (stored, False)):
            if _have_same_aspect(expected, size):
                return _Frame(size, orient)
        return _Frame(upright, True) if self.policy == "clamp" else None

    def _report_once(self, index: int, kind: str, message: str, action: str) -> None:
        """Report a problem of an image the first time it is read."""
        if (index, kind) not in self._reported:
            self.report.add(kind, message, action=action)
        self._reported.add((index, kind))


def _size_of(image: Tensor) -> Size:
    return int(image.shape[1]), int(image.shape[2])


def _have_same_aspect(old: Size, new: Size) -> bool:
    """Return True if one size is the other one, scaled and rounded to pixels."""
    (short, long), (new_short, new_long) = (old, new) if old[0] <= old[1] else (old[::-1], new[::-1])
    return abs(short * new_long / long - new_short) <= 1


def _describe(expected: Size, actual: Size) -> str:
    return f"the image has {actual[1]} x {actual[0]} pixels, but {expected[1]} x {expected[0]} in the JSON"
