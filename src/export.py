"""``python -m src.export`` on this checkout; installed, ``python -m hydet.cli.export`` or ``hydet-export``."""

import sys

from hydet.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
