"""Precomputed proposals."""
