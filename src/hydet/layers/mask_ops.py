"""Mask pasting, re-exported from ``hydet.structures`` under its documented name."""

from hydet.structures import paste_masks_in_image

__all__ = ["paste_masks_in_image"]
