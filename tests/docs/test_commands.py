"""The commands in the documentation name scripts, sessions and options that exist; nothing is trained."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import hydet

ROOT = Path(__file__).parents[2]
# docs/from_detectron2.md has its own test, and the commands of examples/own_parts/README.md run in tests/config.
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/large_images_and_videos.md",
    "docs/export.md",
    "docs/mmdet.md",
    "docs/speed.md",
]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
SESSIONS = {
    node.name
    for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef)
}


def command_lines(text):
    """Return the words of each line in the shell blocks, with continued lines joined and comments removed."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def hydra_commands():
    """Yield command and overrides of each line that starts a command of hydet."""
    for page, text in TEXTS.items():
        for words in command_lines(text):
            if words[:2] == ["python", "-m"] and words[2].startswith("src.") and "=" in " ".join(words[3:]):
                overrides = [word for word in words[3:] if not word.startswith("-") and word != "job"]
                yield pytest.param(
                    words[2].removeprefix("src."), overrides, id=f"{page}: {' '.join(words[2:])}"
                )


def first_option(override):
    """Return an override with the first of its values, as the first run of a sweep has it."""
    key, _, value = override.partition("=")
    return override if "[" in value else f"{key}={value.split(',')[0]}"


def test_a_line_is_read_without_comment_and_with_its_continuation():
    text = "```bash\npython -m src.train a=1 \\\n    b=2   # two values\n```\n"
    assert command_lines(text) == [["python", "-m", "src.train", "a=1", "b=2"]]


@pytest.mark.parametrize(("command", "overrides"), list(hydra_commands()))
def test_overrides_of_a_documented_command_compose(command, overrides):
    if (
        command != "train"
    ):  # keys of the model refer to the config of the checkpoint, which does not exist here
        overrides = [override for override in overrides if not override.startswith("model.")]
    cfg = hydet.compose(*map(first_option, overrides), config_name=command)
    assert ("model" in cfg) == (command in ("train", "benchmark"))


@pytest.mark.parametrize("page", PAGES)
def test_sessions_and_scripts_of_a_page_exist(page):
    text = TEXTS[page]
    sessions = {
        word
        for words in re.findall(r"nox -s ((?:[a-z_]+ ?)+)", text)
        for word in words.split()
        if not words.startswith("-")
    }
    assert sessions <= SESSIONS
    modules = {name.replace(".", "/") for name in re.findall(r"python -m (src\.\w+)", text)}
    scripts = set(re.findall(r"python ((?:docs|tests|benchmarks)/[\w/]+\.py)", text))
    assert not [name for name in modules if not (ROOT / f"{name}.py").exists()]
    assert not [name for name in scripts if not (ROOT / name).exists()]
