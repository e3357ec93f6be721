"""What a dataset means: names of classes and keypoints, and the ids they have in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Metadata"]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The vocabulary of a dataset; immutable, and plain JSON through ``to_dict``, so that checkpoints carry it.

    Args:
        name: of the dataset, for messages.
        thing_classes: names of the classes 0 ... K-1 of objects.
        thing_ids: for each of them its ``category_id`` in files; by default 1 ... K.
        keypoint_names: of the K keypoints that every object has.
        keypoint_flip_pairs: pairs of names that change places in a mirror, as (left_eye, right_eye).
        keypoint_sigmas: tolerance of each keypoint in COCO's object keypoint similarity.
        keypoint_skeleton: pairs of names to be joined in pictures.
        stuff_classes: names of the semantic labels 0 ... S-1; the first one usually stands for all things.
        stuff_ids: for each of them its ``category_id`` in panoptic files; by default 0 ... S-1.
        palette: RGB in 0 ... 255 for each thing class, or nothing.

    Raises:
        ValueError: if lengths disagree, names or ids are repeated, or a pair names no keypoint.
    """

    name: str = ""
    thing_classes: tuple[str, ...] = ()
    thing_ids: tuple[int, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    keypoint_flip_pairs: tuple[tuple[str, str], ...] = ()
    keypoint_sigmas: tuple[float, ...] = ()
    keypoint_skeleton: tuple[tuple[str, str], ...] = ()
    stuff_classes: tuple[str, ...] = ()
    stuff_ids: tuple[int, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "name":
                object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))
        if self.thing_classes and not self.thing_ids:
            object.__setattr__(self, "thing_ids", tuple(range(1, len(self.thing_classes) + 1)))
        if self.stuff_classes and not self.stuff_ids:
            object.__setattr__(self, "stuff_ids", tuple(range(len(self.stuff_classes))))
        self._check()

    def _check(self) -> None:
        for names, ids in (("thing_classes", "thing_ids"), ("stuff_classes", "stuff_ids")):
            values, numbers = getattr(self, names), getattr(self, ids)
            if len(values) != len(numbers):
                raise ValueError(f"Metadata: {len(values)} {names}, but {len(numbers)} {ids}")
            if len(set(numbers)) != len(numbers):
                raise ValueError(f"Metadata: {ids} must differ from one another, got {numbers}")
        for names in ("thing_classes", "keypoint_names"):
            values = getattr(self, names)
            if len(set(values)) != len(values):
                raise ValueError(f"Metadata: {names} must differ from one another, got {values}")
        if self.keypoint_sigmas and len(self.keypoint_sigmas) != len(self.keypoint_names):
            raise ValueError(
                f"Metadata: {len(self.keypoint_names)} keypoint_names, but {len(self.keypoint_sigmas)} keypoint_sigmas"
            )
        if self.palette and len(self.palette) != len(self.thing_classes):
            raise ValueError(f"Metadata: {len(self.thing_classes)} classes, but {len(self.palette)} colours")
        for pair in self.keypoint_flip_pairs + self.keypoint_skeleton:
            if len(pair) != 2 or any(name not in self.keypoint_names for name in pair):
                raise ValueError(
                    f"Metadata: {pair} must be two of the keypoint_names {list(self.keypoint_names)}"
                )
        paired = [name for pair in self.keypoint_flip_pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise ValueError("Metadata: a keypoint stands in more than one of keypoint_flip_pairs")

    @property
    def num_classes(self) -> int:
        """How many classes of objects there are."""
        return len(self.thing_classes)

    @property
    def num_keypoints(self) -> int:
        """How many keypoints an object has."""
        return len(self.keypoint_names)

    @property
    def keypoint_flip_indices(self) -> tuple[int, ...]:
        """For each keypoint of a mirrored object the index of the keypoint that it was."""
        order = list(range(len(self.keypoint_names)))
        for pair in self.keypoint_flip_pairs:
            a, b = (self.keypoint_names.index(name) for name in pair)
            order[a], order[b] = b, a
        return tuple(order)

    def to_dict(self) -> dict[str, Any]:
        """Lists, strings and numbers only."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; keys that this version does not know are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
