"""A dataset that is generated from a seed; ``python -m hydet.data.shapes --out FOLDER`` writes it as COCO files."""

from hydet.data.shapes.dataset import SHAPE_CLASSES, SHAPE_KEYPOINTS, ShapesDataset

__all__ = ["SHAPE_CLASSES", "SHAPE_KEYPOINTS", "ShapesDataset"]
