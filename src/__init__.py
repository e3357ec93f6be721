"""Makes ``python -m src.train`` run this checkout; the library itself is ``hydet``."""
