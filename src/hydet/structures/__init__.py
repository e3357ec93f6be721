"""Containers of boxes, masks, keypoints and images, and the geometry on them."""

from hydet.structures.boxes import (
    Boxes,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from hydet.structures.image_list import ImageList
from hydet.structures.instances import Instances

__all__ = [
    "Boxes",
    "ImageList",
    "Instances",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
]
