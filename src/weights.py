"""``python -m src.weights`` on this checkout; installed, ``python -m hydet.cli.weights`` or ``hydet-weights``."""

import sys

from hydet.cli.weights import main

if __name__ == "__main__":
    sys.exit(main())
