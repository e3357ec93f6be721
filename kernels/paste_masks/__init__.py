"""Pasting of masks that are relative to boxes into images."""

from hydet.kernels.paste_masks.op import paste_masks

__all__ = ["paste_masks"]
