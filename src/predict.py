"""``python -m src.predict`` on this checkout; installed, ``python -m hydet.cli.predict`` or ``hydet-predict``."""

import sys

from hydet.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
