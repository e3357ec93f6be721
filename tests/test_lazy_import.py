"""``import hydet`` stays light; ``hydet.optimize`` is imported at its first use."""

import subprocess
import sys

import pytest

import hydet
from hydet.modeling import optimize


def test_optimize_is_that_of_modeling():
    assert hydet.optimize is optimize and "optimize" in hydet.__all__


def test_another_name_is_missing():
    with pytest.raises(AttributeError, match="no attribute 'optimum'"):
        hydet.optimum  # noqa: B018


def test_import_of_hydet_imports_no_models():
    code = "import sys, hydet; assert not {'torch', 'hydet.modeling'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
