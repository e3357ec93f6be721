"""Settings for the appearance and difficulty of generated images."""

from __future__ import annotations

import dataclasses

__all__ = ["SceneStyle"]


@dataclasses.dataclass(frozen=True)
class SceneStyle:
    """Appearance and difficulty of generated images; see :class:`hydet.data.ShapesDataset` for the fields."""

    shapes: tuple[str, ...]
    min_objects: int
    max_objects: int
    min_size: float
    max_size: float
    rotation: float
    min_visibility: float
    empty_fraction: float
    crowd_fraction: float
    max_distractors: int
    contrast: float
    noise: int
    textures: bool
