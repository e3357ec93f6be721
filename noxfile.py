"""What CI and everybody else runs: ``nox -s tests``, ``nox -s lint types`` and the rest of ``nox -l``."""

from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on a CPU: unit tests, parity with the reference's numbers, the commands end to end.

    ``-- -n 0 --pdb`` brings back one process.
    """
    session.install("-e", ".[test]")
    # A test runs on one thread (tests/conftest.py), so every core takes a worker; the tests of a file share fixtures.
    session.run("pytest", "-n", "auto", "--dist", "loadfile", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types."""
    session.install("-e", ".[test]", "mypy>=1.13")
    session.run("mypy")


@nox.session
def parity(session: nox.Session) -> None:
    """Every stored parity case against the reference's numbers, with the differences printed."""
    session.install("-e", ".[test]")
    session.run("python", "tests/parity/parity.py", "check", "--lib", "hydet", *session.posargs)


@nox.session
def mmdet(session: nox.Session) -> None:
    """hydet around mmdet's own models; elsewhere these tests are skipped, as mmdet pins its relatives."""
    session.install("-e", ".[test,mmdet]")
    session.run("pytest", "tests/interop", *session.posargs)
    session.run("pytest", "tests/config/test_tree.py", "-k", "mmdet")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job on the generated dataset, then its checkpoint evaluated and used."""
    session.install("-e", ".")
    run = Path(session.create_tmp()) / "demo"
    session.run("python", "-m", "src.train", f"output_dir={run}", *session.posargs)
    session.run("python", "-m", "src.evaluate", f"checkpoint={run}", f"output_dir={run}/evaluation")
    session.run(
        "python",
        "-m",
        "hydet.data.shapes",
        "--out",
        f"{run}/pictures",
        "--num-images",
        "8",
        "--val-images",
        "2",
    )
    session.run(
        "python", "-m", "src.predict", f"checkpoint={run}", f"input={run}/pictures/train",
        f"output_dir={run}/predictions",
    )  # fmt: skip


@nox.session
def learn(session: nox.Session) -> None:
    """Every architecture trained on the generated dataset, an hour in all; fails if one learns too little."""
    session.install("-e", ".")
    session.run("python", "benchmarks/learn_shapes.py", *session.posargs)


@nox.session
def notebook(session: nox.Session) -> None:
    """The example notebook from top to bottom; it asserts what it learned. ``-- --inplace`` keeps the new outputs."""
    session.install("-e", ".", "nbclient>=0.10", "ipykernel>=6")
    session.run("jupyter", "execute", "--timeout=900", "examples/build_a_detector.ipynb", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Tables of speed, each against something else in the same run."""
    session.install("-e", ".[test]")
    for threads in ("1", "2"):
        session.run("python", "benchmarks/compare_torchvision.py", "--threads", threads, *session.posargs)
    session.run("python", "benchmarks/kernels.py")


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """On a machine with a CUDA device, in the active environment, without network: kernel tests, then all benchmarks.

    The tests run compiled what the interpreter runs elsewhere. Arguments go to pytest, such as ``-- -n 8``. Benchmarks
    run, and write ``benchmarks/results/``, also if a test fails.
    """
    session.run("python", "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".")
    shape = ["--size", "832", "1344", "--batch", "2"]
    models = ["benchmarks/compare_torchvision.py", "--device", "cuda", *shape, "--runs", "20"]
    failed = []
    for command in (
        ["-m", "pytest", "tests/kernels", *session.posargs],
        ["benchmarks/kernels.py", "--device", "cuda"],
        models,
        [*models, "--dtype", "bfloat16"],
    ):
        try:
            session.run("python", *command)
        except CommandFailed:
            failed.append(" ".join(command))
    if failed:
        session.error("failed: " + "; ".join(failed))
