"""List old idioms in prose and vague names in code: ``python tests/check_english.py [PATH ...]``.

Prose is docstrings, comments, string literals that contain spaces, Markdown text, comments of YAML files and the Markdown
cells of notebooks. Prints one line per finding and exits with 1 if there are any. ``nox -s lint`` runs it over the
repository. A line that must keep a word (a quotation, a format's own key) ends in ``# english: keep``.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFAULT = (
    "src",
    "kernels",
    "conf",
    "tests",
    "benchmarks",
    "docs",
    "examples",
    "noxfile.py",
    "setup.py",
    "*.md",
)
# Copies of files that other projects own, generated files, and this file, which holds the words themselves.
EXCLUDED = re.compile(
    r"tests/parity/(cases_\w+|parity|d\w+)\.py|tests/parity/goldens/|docs/configs/|benchmarks/results/|"
    r"tests/check_english\.py|src/hydet/(kernels|conf)/|\.egg-info|/\.|build/"
)

# Words of this list are wrong in any prose of the project; each has a plain replacement.
WORDS = {
    r"likewise": "repeat the words",
    r"whoever|nobody|somebody": "name the function, caller or user",
    r"pictures?": "image",
    r"colou?red by its|colours?|coloured": "color",
    r"behaviours?": "behavior",
    r"centred?": "center",
    r"neighbours?(ing|hood)?": "neighbor",
    r"\w*(normal|optim|initial|serial|general|special|recogn|regular|visual|quant|synchron|organ|minim|maxim|parametr|factor|summar|penal|random|custom|raster|real|util|local|token|vector|character|emphas)is(e|es|ed|ing|ation|ations|er|ers)": "American spelling (-ize)",
    r"labell(ed|ing)|modell(ed|ing)|cancell(ed|ing)|travell\w+|signall(ed|ing)": "American spelling (one l)",
    r"analys(e|es|ed|ing)": "analyze",
    r"grey": "gray",
    r"licence": "license",
    r"catalogue": "catalog",
    r"(an|one) image(?= (at least|each)\b)": "per image",
    r"such as (has|have) been": "rewrite",
    r"so many": "every N",
    r"hears? of it|told": "name the event",
    r"wants|knows|asked|asks": "parts of a program do not want, know or ask",
}
# Openings of a docstring or of a sentence in one.
OPENINGS = re.compile(r"(?:^|(?<=[.!?]) )(Of|What|Which|Whether|Who|Whoever)\b(?! ?'s new)", re.MULTILINE)
PER = re.compile(
    r"\b(one|two|three|\d+|number|numbers|dict|mapping|tensor|boxes|anchors|channels?|values?|rows?|entries|pixels|instances?|``\w+``) "
    r"an? (image|cell|anchor|level|channel|class|step|box|batch|process|object|pixel|point|region|category|axis|side|query)\b",
    re.IGNORECASE,
)
# Local names that say nothing about what they hold.
VAGUE_NAMES = {"found", "own", "place", "kept", "one", "truth", "picture", "pictures"}

Finding = tuple[int, str]


def prose_findings(text: str, line: int, *, sentences: bool) -> Iterator[Finding]:
    """Yield the idioms in one piece of prose that starts at ``line``; ``sentences`` also checks how sentences open."""
    text = re.sub(r"``[^`]*``|`[^`]*`", lambda match: re.sub(r"\w", "x", match[0]), text)  # code is not prose

    def at(match: re.Match[str]) -> int:
        return line + text[: match.start()].count("\n")

    for pattern, advice in WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            yield at(match), f"{match[0]!r}: {advice}"
    for match in PER.finditer(text):
        yield at(match), f"{match[0]!r}: per {match[2]}"
    if sentences:
        for match in OPENINGS.finditer(re.sub(r"\n[ \t]*(?=\S)", " ", text) if "\n\n" not in text else text):
            yield line, f"a sentence opens with {match[1]!r}"


def python_findings(source: str) -> Iterator[Finding]:
    """Yield findings in docstrings, comments, messages and names of Python code."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.add(id(first.value))
                paragraphs = re.split(r"\n\s*\n", first.value.value)
                line = first.lineno
                for paragraph in paragraphs:
                    joined = re.sub(r"\s*\n\s*", " ", paragraph.strip())
                    yield from prose_findings(joined, line, sentences=True)
                    line += paragraph.count("\n") + 2
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            words = node.name.replace("_", " ")
            for pattern, advice in WORDS.items():
                for match in re.finditer(rf"\b(?:{pattern})\b", words):
                    yield node.lineno, f"test name has {match[0]!r}: {advice}"
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        if name in VAGUE_NAMES:
            yield node.lineno, f"vague name {name!r}"
    for node in ast.walk(tree):
        is_text = (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        )
        if is_text and " " in node.value.strip():
            yield from prose_findings(node.value, node.lineno, sentences=False)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from prose_findings(token.string.lstrip("# "), token.start[0], sentences=True)


def markdown_findings(text: str) -> Iterator[Finding]:
    """Yield findings in Markdown, outside of code blocks."""
    text = re.sub(
        r"^```.*?^```", lambda match: "\n" * match[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL
    )
    yield from prose_findings(text, 1, sentences=False)


def yaml_findings(text: str) -> Iterator[Finding]:
    """Yield findings in the comments of YAML."""
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.search(r"(?:^|\s)#\s?(.*)", line)
        if comment:
            yield from prose_findings(comment[1], number, sentences=True)


def notebook_findings(text: str) -> Iterator[Finding]:
    """Yield findings in the cells of a notebook."""
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from markdown_findings(source)
        elif cell["cell_type"] == "code" and not source.lstrip().startswith(("%", "!")):
            yield from python_findings(source)


READERS = {
    ".py": python_findings,
    ".md": markdown_findings,
    ".yaml": yaml_findings,
    ".yml": yaml_findings,
    ".ipynb": notebook_findings,
}


def check_file(path: Path) -> list[str]:
    """Return one line per finding in ``path``."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    findings = sorted(set(READERS[path.suffix](text)))
    return [
        f"{name}:{number}: {message}"
        for number, message in findings
        if number > len(lines) or not lines[number - 1].endswith("# english: keep")
    ]


def files_below(arguments: list[str]) -> Iterator[Path]:
    """Yield the files that ``arguments`` name, folders in depth, without excluded ones."""
    for argument in arguments or [str(path) for pattern in DEFAULT for path in sorted(ROOT.glob(pattern))]:
        path = Path(argument).resolve()
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in READERS and file.is_file() and not EXCLUDED.search(file.as_posix()):
                yield file


def main(arguments: list[str]) -> int:
    """Print all findings; return the exit status."""
    findings = [finding for file in files_below(arguments) for finding in check_file(file)]
    print("\n".join(findings) or "no old idioms")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
