"""Polygons and run-length codes of COCO annotations."""
