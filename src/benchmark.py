"""``python -m src.benchmark`` on this checkout; installed, ``python -m hydet.cli.benchmark`` or ``hydet-benchmark``."""

import sys

from hydet.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
