"""Non-maximum suppression of upright boxes, batched over images and groups, with static shapes."""

from hydet.kernels.nms_padded.op import nms_padded

__all__ = ["nms_padded"]
