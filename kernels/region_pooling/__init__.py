"""Bilinear pooling of regions, shared by ``roi_align`` (upright regions) and ``roi_align_rotated`` (rotated regions)."""
