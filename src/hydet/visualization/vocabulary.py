"""Names, colors and skeletons of a dataset, as drawing needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hydet.visualization.palette import Color, as_color, palette

__all__ = ["Vocabulary"]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Names and colors to draw with; empty fields give numbers and default colors.

    Args:
        thing_classes: names of the classes of objects.
        stuff_classes: names of the semantic labels.
        thing_colors: RGB color of each class of objects, in 0 to 255.
        skeleton: pairs of keypoint indices to connect.
    """

    thing_classes: Sequence[str] = ()
    stuff_classes: Sequence[str] = ()
    thing_colors: Sequence[Color] = ()
    skeleton: Sequence[tuple[int, int]] = ()

    @classmethod
    def from_metadata(cls, metadata: object) -> Vocabulary:
        """Read the fields that the metadata has.

        Args:
            metadata: a ``hydet.data.Metadata``, or any object with some of ``thing_classes``, ``stuff_classes``,
                ``palette``, ``keypoint_names`` and ``keypoint_skeleton``; None for an empty vocabulary. The skeleton
                holds pairs of keypoint names or of indices.

        Raises:
            ValueError: if a color is not three numbers in 0 to 255.
        """
        keypoint_names = list(getattr(metadata, "keypoint_names", None) or ())
        pairs = getattr(metadata, "keypoint_skeleton", None) or ()
        indices = [
            [keypoint_names.index(k) if isinstance(k, str) else int(k) for k in pair] for pair in pairs
        ]
        return cls(
            thing_classes=getattr(metadata, "thing_classes", None) or (),
            stuff_classes=getattr(metadata, "stuff_classes", None) or (),
            thing_colors=[as_color(color) for color in getattr(metadata, "palette", None) or ()],
            skeleton=[(pair[0], pair[1]) for pair in indices],
        )

    def thing_name(self, index: int) -> str:
        """Return the name of a class of objects, or its number."""
        return _name(self.thing_classes, index)

    def stuff_name(self, index: int) -> str:
        """Return the name of a semantic label, or its number."""
        return _name(self.stuff_classes, index)

    def thing_color(self, index: int) -> Color:
        """Return the color of a class of objects."""
        if 0 <= index < len(self.thing_colors):
            return self.thing_colors[index]
        return palette(max(index, 0) + 1)[-1]


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"#{index}"
