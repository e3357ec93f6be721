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
from hydet.visualization.training import (
    draw_boxes_beside_ground_truth,
    draw_labels_beside_ground_truth,
    draw_masks_beside_ground_truth,
)

__all__ = [
    "draw_boxes_beside_ground_truth",
    "draw_ground_truth",
    "draw_instances",
    "draw_labels_beside_ground_truth",
    "draw_masks_beside_ground_truth",
    "draw_panoptic",
    "draw_predictions",
    "draw_semantic",
    "palette",
    "picture_grid",
    "save_png",
]
