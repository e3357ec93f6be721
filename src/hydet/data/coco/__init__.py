"""Datasets in COCO's JSON formats."""
