"""Suppression of upright boxes, batched over images and classes at once."""

from hydet.kernels.nms.op import nms_padded

__all__ = ["nms_padded"]
