"""Focal loss of integer class targets, summed over pyramid levels."""

from hydet.kernels.sigmoid_focal_loss.op import sigmoid_focal_loss

__all__ = ["sigmoid_focal_loss"]
