"""Focal loss over pyramid levels, from integer classes."""

from hydet.kernels.sigmoid_focal_loss.op import sigmoid_focal_loss

__all__ = ["sigmoid_focal_loss"]
