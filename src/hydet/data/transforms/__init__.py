"""Augmentations of images together with their annotations."""
