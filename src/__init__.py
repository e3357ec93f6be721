"""Entry points of a checkout, such as ``python -m src.train``; the library itself is ``hydet``."""
