"""Build a run from a config, and open a checkpoint as a detector."""
