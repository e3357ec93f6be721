"""A small part of the corpus; ``nox -s corpus`` checks all of it."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("mutate_images.py")


def test_broken_files_are_read_or_named_by_a_process_that_lives_on():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--every", "13"], capture_output=True, text=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout
    table = [line.split()[-3:] for line in result.stdout.splitlines()[1:-1]]
    read, refused, failed = (sum(int(row[column]) for row in table) for column in range(3))
    assert read > 10 and refused > 30 and failed == 0
