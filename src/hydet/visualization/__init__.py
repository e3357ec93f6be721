"""Drawing of predictions and annotations."""

from hydet.visualization.grid import image_grid, save_png
from hydet.visualization.instances import draw_instances
from hydet.visualization.layers import draw_ground_truth, draw_predictions
from hydet.visualization.palette import palette
from hydet.visualization.segmentation import draw_panoptic, draw_semantic
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
    "image_grid",
    "palette",
    "save_png",
]
