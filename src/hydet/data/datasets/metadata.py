"""Names of the classes and keypoints of a dataset, and their ids in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Metadata"]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Names and category ids of a dataset.

    Instances are immutable. Checkpoints store the result of :meth:`to_dict`, which is plain JSON.

    Args:
        name: name of the dataset, for messages.
        thing_classes: names of the object classes 0 ... K-1.
        thing_ids: ``category_id`` of each object class in COCO files; 1 ... K by default.
        keypoint_names: names of the keypoints, the same for all classes.
        keypoint_flip_pairs: pairs of names to swap in a mirrored image, such as (left_eye, right_eye).
        keypoint_sigmas: per-keypoint tolerance in COCO's object keypoint similarity.
        keypoint_skeleton: pairs of names to connect with a line in visualizations.
        stuff_classes: names of the semantic labels 0 ... S-1; by convention label 0 represents all things.
        stuff_ids: ``category_id`` of each semantic label in panoptic files; 0 ... S-1 by default.
        mirrors_keypoints: False if the pairs are not known, so that a mirrored image would have wrong keypoints;
            ``InputMapper`` then mirrors no images with keypoints.
        palette: RGB color in [0, 255] of each object class; may be empty.

    Raises:
        ValueError: if lengths differ, names or ids repeat, or a pair has an unknown keypoint.
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
    mirrors_keypoints: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "name":
                object.__setattr__(self, field.name, _to_tuples(getattr(self, field.name)))
        if self.thing_classes and not self.thing_ids:
            object.__setattr__(self, "thing_ids", tuple(range(1, len(self.thing_classes) + 1)))
        if self.stuff_classes and not self.stuff_ids:
            object.__setattr__(self, "stuff_ids", tuple(range(len(self.stuff_classes))))
        self._check()

    def _check(self) -> None:
        for names, ids in (("thing_classes", "thing_ids"), ("stuff_classes", "stuff_ids")):
            num_names, category_ids = len(getattr(self, names)), getattr(self, ids)
            if num_names != len(category_ids):
                raise ValueError(
                    f"Metadata: {names} and {ids} must have equal lengths, got {num_names} and {len(category_ids)}"
                )
            if len(set(category_ids)) != len(category_ids):
                raise ValueError(f"Metadata: {ids} must be unique, got {category_ids}")
        for names in ("thing_classes", "keypoint_names"):
            values = getattr(self, names)
            if len(set(values)) != len(values):
                raise ValueError(f"Metadata: {names} must be unique, got {values}")
        if self.keypoint_sigmas and len(self.keypoint_sigmas) != len(self.keypoint_names):
            raise ValueError(
                "Metadata: keypoint_names and keypoint_sigmas must have equal lengths, "
                f"got {len(self.keypoint_names)} and {len(self.keypoint_sigmas)}"
            )
        if self.palette and len(self.palette) != len(self.thing_classes):
            raise ValueError(
                "Metadata: thing_classes and palette must have equal lengths, "
                f"got {len(self.thing_classes)} and {len(self.palette)}"
            )
        for pair in self.keypoint_flip_pairs + self.keypoint_skeleton:
            if len(pair) != 2 or any(name not in self.keypoint_names for name in pair):
                raise ValueError(
                    f"Metadata: {pair} must be two of the keypoint_names {list(self.keypoint_names)}"
                )
        paired = [name for pair in self.keypoint_flip_pairs for name in pair]
        if len(set(paired)) != len(paired):
            raise ValueError("Metadata: a keypoint is in more than one of keypoint_flip_pairs")

    @property
    def num_classes(self) -> int:
        """Number of object classes."""
        return len(self.thing_classes)

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints per object."""
        return len(self.keypoint_names)

    @property
    def keypoint_flip_indices(self) -> tuple[int, ...]:
        """For each keypoint of a mirrored object, the index of the keypoint before mirroring."""
        order = list(range(len(self.keypoint_names)))
        for pair in self.keypoint_flip_pairs:
            a, b = (self.keypoint_names.index(name) for name in pair)
            order[a], order[b] = b, a
        return tuple(order)

    def to_dict(self) -> dict[str, object]:
        """Return the fields as lists, strings and numbers, ready for JSON."""
        return {field.name: _to_lists(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build metadata from the result of :meth:`to_dict`; unknown keys are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def _to_tuples(value: object) -> object:
    return tuple(_to_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _to_lists(value: object) -> object:
    return [_to_lists(v) for v in value] if isinstance(value, tuple) else value
