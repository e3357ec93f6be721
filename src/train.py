"""``python -m src.train`` on this checkout; installed, ``python -m hydet.cli.train`` or ``hydet-train``."""

import sys

from hydet.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
