"""Greedy suppression from known overlaps, shared by ``nms_padded`` and ``nms_rotated``."""
