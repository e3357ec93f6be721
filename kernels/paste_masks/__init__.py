"""Masks that are relative to a box, drawn where the box is."""

from hydet.kernels.paste_masks.op import paste_masks

__all__ = ["paste_masks"]
