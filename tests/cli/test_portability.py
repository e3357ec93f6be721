"""The commands run without the modules and signals that Windows lacks, and never rely on the encoding of the locale."""

import os
import subprocess
import sys

import pytest

ABSENT_MODULES = ("resource", "fcntl", "pwd")
ABSENT_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM")

SCRIPT = """
import os, signal, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"hydet(\\.|$)")
import torch, torchvision, hydra  # these may use what is removed below
for name in ABSENT_MODULES:
    sys.modules[name] = None
for name in ABSENT_SIGNALS:
    delattr(signal, name)
real_open = os.open
def open_no_folders(path, *arguments, **options):
    if os.path.isdir(path) and "dir_fd" not in options and "TMP" in str(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *arguments, **options)
os.open = open_no_folders
def no_links(*arguments, **options):
    raise OSError("a required privilege is not held by the client")
os.symlink = no_links
from hydet.cli import evaluate, predict, train
out = sys.argv[1]
sys.exit(
    train.main([*sys.argv[3:], "model=retinanet", "trainer.max_steps=1", f"output_dir={out}/run"])
    or evaluate.main([f"checkpoint={out}/run", f"output_dir={out}/evaluation"])
    or predict.main([f"checkpoint={out}/run", f"input={sys.argv[2]}", f"output_dir={out}/prediction"])
)
"""


@pytest.fixture
def run_in_latin_1(tmp_path, coco_folder, shapes_overrides):
    """Run the three commands in a process with a Latin-1 locale, as far as Python allows."""

    def run(*overrides):
        environment = {
            **os.environ,
            "PYTHONWARNDEFAULTENCODING": "1",
            "PYTHONUTF8": "0",
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "utf-8",
        }
        script = SCRIPT.replace("ABSENT_MODULES", repr(ABSENT_MODULES)).replace(
            "ABSENT_SIGNALS", repr(ABSENT_SIGNALS)
        )
        script = script.replace("TMP", str(tmp_path))
        return subprocess.run(
            [
                sys.executable, "-W", "ignore", "-c", script, str(tmp_path),
                str(coco_folder / "val"), *shapes_overrides, *overrides,
            ],
            capture_output=True, text=True, encoding="utf-8", errors="replace", env=environment, check=False,
        )  # fmt: skip

    return run


def test_commands_without_posix_and_with_another_encoding(run_in_latin_1, tmp_path):
    done = run_in_latin_1()
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoints" / "last").is_file()  # a text file instead of a link
    assert (tmp_path / "prediction" / "results.json").is_file()
