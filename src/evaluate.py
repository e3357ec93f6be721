"""``python -m src.evaluate`` on this checkout; installed, ``python -m hydet.cli.evaluate`` or ``hydet-evaluate``."""

import sys

from hydet.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
