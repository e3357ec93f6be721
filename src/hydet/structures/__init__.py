"""Containers for boxes, masks, keypoints and images, and geometry on them."""

from hydet.structures.box_mode import BoxMode
from hydet.structures.boxes import (
    Boxes,
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from hydet.structures.image_list import ImageList
from hydet.structures.image_resizing import resize_nearest, resize_with_pillow, shortest_edge_size
from hydet.structures.instances import Instances
from hydet.structures.keypoints import Keypoints, heatmaps_to_keypoints
from hydet.structures.masks import (
    BitMasks,
    PolygonMasks,
    ROIMasks,
    paste_masks_in_image,
    polygons_to_bitmask,
    rasterize_polygons_within_box,
)
from hydet.structures.model_io import Losses, ModelInput, ModelOutput, SegmentInfo
from hydet.structures.rotated_boxes import RotatedBoxes, pairwise_iou_rotated
from hydet.structures.semantic_scores import SemanticScores, semantic_labels

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "Keypoints",
    "Losses",
    "ModelInput",
    "ModelOutput",
    "PolygonMasks",
    "ROIMasks",
    "RotatedBoxes",
    "SegmentInfo",
    "SemanticScores",
    "heatmaps_to_keypoints",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_iou_rotated",
    "pairwise_point_box_distance",
    "paste_masks_in_image",
    "polygons_to_bitmask",
    "rasterize_polygons_within_box",
    "resize_nearest",
    "resize_with_pillow",
    "semantic_labels",
    "shortest_edge_size",
]
