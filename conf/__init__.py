"""The Hydra tree, installed as ``hydet.conf`` and found as ``pkg://hydet.conf``."""
