"""Content of the wheel, and the commands of an installed wheel."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys, setuptools.build_meta as b; sys.argv = ['']; b.build_wheel('dist')"
RUN = """
import runpy, sys
import hydet, hydet.conf, hydet.kernels
for module in (hydet, hydet.conf, hydet.kernels):
    assert list(module.__path__)[0].startswith(sys.argv[1]), module.__path__
sys.argv = ["train", "--cfg", "job", "--resolve", "model=mask_rcnn_fpn", "backbone=r50"]
runpy.run_module("hydet.cli.train", run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("building the wheel needs setuptools (pip install hydet[test])")
    source = tmp_path_factory.mktemp("source")
    ignore_patterns = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
    for name in ("src", "kernels", "conf", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore_patterns)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (source / "dist").glob("*.whl")
    return file


def test_the_wheel_is_pure_python_and_complete(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {"hydet/py.typed", "hydet/interop/model_zoo.json"}
    expected |= {f"hydet/conf/{p.relative_to(ROOT / 'conf')}" for p in (ROOT / "conf").rglob("*.yaml")}
    expected |= {f"hydet/kernels/{p.relative_to(ROOT / 'kernels')}" for p in (ROOT / "kernels").rglob("*.py")}
    expected |= {f"hydet/{p.relative_to(ROOT / 'src/hydet')}" for p in (ROOT / "src/hydet").rglob("*.py")}
    assert sorted(expected - names) == []
    others = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert others == {"hydet"}
    assert not [name for name in names if {"tests", "conftest.py"} & set(name.split("/"))]


def test_an_installed_command_finds_its_configs(wheel, tmp_path):
    target = tmp_path / "installed"
    if importlib.util.find_spec("pip") is not None:
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
        subprocess.run([*install, str(target), str(wheel)], check=True, capture_output=True)
    else:
        zipfile.ZipFile(wheel).extractall(target)  # all that installing a pure wheel into a folder does
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(target)}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(target)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "_target_: hydet.modeling.GeneralizedRCNN" in done.stdout and "depth: 50" in done.stdout
