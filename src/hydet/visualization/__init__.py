"""Predictions and annotations as pictures."""

from hydet.visualization.drawing import (
    draw_ground_truth,
    draw_instances,
    draw_panoptic,
    draw_predictions,
    draw_semantic,
)
from hydet.visualization.grid import picture_grid, save_png
from hydet.visualization.palette import palette

__all__ = [
    "draw_ground_truth",
    "draw_instances",
    "draw_panoptic",
    "draw_predictions",
    "draw_semantic",
    "palette",
    "picture_grid",
    "save_png",
]
