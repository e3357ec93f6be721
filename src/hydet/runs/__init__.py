"""Builds a run from a config, and opens a checkpoint as a detector."""
