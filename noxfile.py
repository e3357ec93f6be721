"""Sessions for developers and CI: ``nox -s lint types tests``; ``nox -l`` lists the others."""

from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

# The oldest supported versions of the packages that pyproject.toml bounds from below.
OLDEST = ["torch==2.11.*", "torchvision==0.26.*", "hydra-core==1.3.8", "omegaconf==2.3.1"]

# A test runs on one thread (tests/conftest.py), so each core takes a worker. The tests of a file share fixtures, and
# the files run in the order of tests/conftest.py.
PARALLEL = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole suite on a CPU: unit tests, parity with the reference, and the commands end to end.

    ``-- -n 0 --pdb`` runs in one process.
    """
    session.install("-e", ".[test]")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def tests_oldest(session: nox.Session) -> None:
    """Run the suite with the oldest supported versions of torch and Hydra."""
    session.install("-e", ".[test]", *OLDEST)
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the suite and report the lines of ``src/hydet`` and ``kernels`` that no test reaches."""
    session.install("-e", ".[test]", "pytest-cov>=6")
    session.run("coverage", "erase")
    session.run("pytest", *PARALLEL, "--cov", "--cov-report=term-missing", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, spelling, English, and the direction of imports."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run("python", "tests/check_english.py")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check static types."""
    session.install("-e", ".[test,lint]")
    session.run("mypy")


@nox.session
def parity(session: nox.Session) -> None:
    """Compare every stored parity case with the reference and print the differences."""
    session.install("-e", ".[test]")
    session.run("python", "tests/parity/parity.py", "check", "--lib", "hydet", *session.posargs)


@nox.session
def corpus(session: nox.Session) -> None:
    """Break images, annotations and weights in thousands of ways; each file is read or named, about four minutes."""
    session.install("-e", ".[test]")
    for script in ("mutate_images.py", "mutate_json.py", "mutate_weights.py"):
        session.run("python", f"tests/corpus/{script}", *session.posargs)


@nox.session(name="compile")
def compile_models(session: nox.Session) -> None:
    """Compile the tensor core of every architecture and count graph breaks and recompilations, about five minutes."""
    session.install("-e", ".[test]")
    session.run("pytest", *PARALLEL, "-m", "compile", "tests/modeling", *session.posargs)


@nox.session
def weights(session: nox.Session) -> None:
    """Convert models of published sizes from other libraries and compare all results, without network."""
    session.install("-e", ".[test]")
    session.run("pytest", *PARALLEL, "-m", "weights", "tests/interop", *session.posargs)


@nox.session
def export(session: nox.Session) -> None:
    """Export every architecture in every format and compare the files with the models, in about two hours."""
    session.install("-e", ".[test]")
    session.run("pytest", *PARALLEL, "-m", "export", "tests/export", "tests/runs", *session.posargs)


@nox.session
def mmdet(session: nox.Session) -> None:
    """Test hydet with models of mmdet, which pins versions of its own; other sessions skip these tests."""
    session.install("-e", ".[test,mmdet]")
    warnings = ["-W", "default"]  # mmdet and mmcv warn about their own code
    session.run("pytest", *warnings, "tests/interop", *session.posargs)
    session.run("pytest", *warnings, "tests/config/test_tree.py", "-k", "mmdet")


@nox.session
def demo(session: nox.Session) -> None:
    """Train on the generated dataset, then evaluate the checkpoint and predict with it."""
    session.install("-e", ".")
    run = Path(session.create_tmp()) / "demo"
    session.run("python", "-m", "src.train", f"output_dir={run}", *session.posargs)
    session.run("python", "-m", "src.evaluate", f"checkpoint={run}", f"output_dir={run}/evaluation")
    session.run(
        "python", "-m", "hydet.data.shapes", "--out", f"{run}/images", "--num-images", "8", "--val-images", "2",
    )  # fmt: skip
    session.run(
        "python", "-m", "src.predict", f"checkpoint={run}", f"input={run}/images/train",
        f"output_dir={run}/predictions",
    )  # fmt: skip


@nox.session
def configs(session: nox.Session) -> None:
    """Write the resolved YAML of every model option to ``docs/configs``, and the import graph of the architecture page."""
    session.install("-e", ".")
    session.run("python", "docs/write_configs.py", *session.posargs)
    session.run("python", "docs/write_import_graph.py", *session.posargs)


@nox.session
def learn(session: nox.Session) -> None:
    """Train every architecture on the generated dataset, about an hour; fails if one stays below its floor."""
    session.install("-e", ".")
    session.run("python", "benchmarks/learn_shapes.py", *session.posargs)
    session.run("python", "benchmarks/learn_photos.py")


@nox.session
def notebook(session: nox.Session) -> None:
    """Run the example notebook, which asserts what it learned. ``-- --inplace`` stores the new outputs."""
    session.install("-e", ".", "nbclient>=0.10", "ipykernel>=6")
    session.run("jupyter", "execute", "--timeout=900", "examples/build_a_detector.ipynb", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed; each table compares two implementations in one run."""
    session.install("-e", ".[test]")
    for threads in ("1", "2"):
        session.run("python", "benchmarks/compare_torchvision.py", "--threads", threads, *session.posargs)
    session.run("python", "benchmarks/models.py", "--threads", "2")
    session.run("python", "benchmarks/kernels.py")


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Run the kernel tests and all benchmarks on a CUDA device, in the active environment and without network.

    The tests compile the kernels that the interpreter runs elsewhere. Arguments go to pytest, such as ``-- -n 8``.
    Benchmarks run, and write ``benchmarks/results/``, even if a test fails.
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
        *(
            ["benchmarks/models.py", "--device", "cuda", "--batch", batch, "--runs", "20"]
            for batch in ("1", "8")
        ),
    ):
        try:
            session.run("python", *command)
        except CommandFailed:
            failed.append(" ".join(command))
    if failed:
        session.error("failed: " + "; ".join(failed))
