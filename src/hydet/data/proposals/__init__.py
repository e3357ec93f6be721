"""Precomputed proposals: files, their formats, and datasets with proposals."""
