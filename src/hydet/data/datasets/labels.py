"""Kinds of labels that datasets have and models need."""

from __future__ import annotations

from typing import Literal

__all__ = ["Label"]

# Labels of a record beside its boxes and classes.
Label = Literal["masks", "keypoints", "rotated_boxes", "semantic", "panoptic"]
