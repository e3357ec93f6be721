"""Ids as a file has them, for files of results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = ["FileId", "FileIds"]

FileId = int | str


@dataclasses.dataclass(frozen=True)
class FileIds:
    """Ids of an annotation file that differ from the integers in records and metadata.

    Records identify images and categories by integers of 64 bits. Files may have text such as ``"img-7"`` or ``"7"``, or
    larger integers. Tools match results to annotations by the value in the file, so files of results have to repeat it.

    Args:
        images: the image id in the file, by the integer in records. Ids that are that integer are left out.
        categories: the category id in the file, by the integer in ``Metadata.thing_ids``.
    """

    images: Mapping[int, FileId] = dataclasses.field(default_factory=dict)
    categories: Mapping[int, FileId] = dataclasses.field(default_factory=dict)

    def image(self, image_id: FileId) -> FileId:
        """Return the image id in the file; an id that is no integer is already that of the file."""
        return self.images.get(image_id, image_id) if isinstance(image_id, int) else image_id

    def category(self, category_id: int) -> FileId:
        """Return the category id in the file."""
        return self.categories.get(category_id, category_id)
