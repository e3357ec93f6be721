"""Write the import graph of hydet's packages into ``docs/architecture.md``.

``python docs/write_import_graph.py`` rewrites the graph; ``--check`` only reports whether it is out of date.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hydet"
PAGE = ROOT / "docs" / "architecture.md"
# The text of each node. A package without a description is an error.
DESCRIPTIONS = {
    "kernels": "Triton and torch ops",
    "distributed": "devices, process groups",
    "files": "atomic writes, reading of pickles",
    "structures": "Boxes, Instances, ImageList, masks",
    "layers": "norms, convs, ROIAlign, NMS, losses",
    "modeling": "backbones, RPN, ROI heads, meta-architectures",
    "data": "datasets, transforms, loaders",
    "evaluation": "COCO, LVIS, rotated, semantic, panoptic",
    "visualization": "drawing on images",
    "interop": "weights of other libraries, mmdet",
    "engine": "loop, callbacks, checkpoints",
    "config": "compose, instantiate",
    "export": "ONNX, torch.export, AOTInductor",
    "runs": "build a run, open a checkpoint",
    "cli": "train, evaluate, predict",
}
_GRAPH = re.compile(r"(?<=<!-- import graph -->\n).*?(?=<!-- end of import graph -->)", re.DOTALL)


def imported_packages() -> dict[str, set[str]]:
    """Return, for each Python package of hydet, the other packages it imports directly."""
    packages = sorted(
        path.name for path in SOURCE.iterdir() if path.name != "conf" and any(path.glob("*.py"))
    )
    return {package: _imports_of(package, set(packages)) - {package} for package in packages}


def graph() -> str:
    """Return the graph as a mermaid block: one arrow from each package to those that import it.

    An arrow is left out where a chain of other arrows leads to the same package.

    Raises:
        ValueError: A package has no description, or packages import each other in a cycle.
    """
    imports = {package: imported for package, imported in imported_packages().items() if _is_part_of(package)}
    if unknown := sorted(set(imports) - set(DESCRIPTIONS)):
        raise ValueError(f"docs/write_import_graph.py: DESCRIPTIONS lacks {', '.join(unknown)}")
    lines = ["```mermaid", "flowchart LR"]
    lines += [f'    {name}["{name}<br/>{text}"]' for name, text in DESCRIPTIONS.items() if name in imports]
    lines += [f"    {source} --> {user}" for source, user in _reduced(imports)]
    lines += ['    conf["conf<br/>YAML tree"] -. "_target_" .-> config', "```", ""]
    return "\n".join(lines)


def outdated() -> bool:
    """Return whether the page shows another graph than that of the code."""
    match = _GRAPH.search(PAGE.read_text(encoding="utf-8"))
    return match is None or match.group() != graph()


def write() -> None:
    """Replace the graph on the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_GRAPH.sub(lambda _: graph(), text), encoding="utf-8")


def _is_part_of(package: str) -> bool:
    """Return whether a package defines or imports anything."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return any(isinstance(node, kinds) for tree in _trees_of(package) for node in tree.body)


@functools.cache
def _trees_of(package: str) -> list[ast.Module]:
    return [ast.parse(file.read_text(encoding="utf-8")) for file in (SOURCE / package).rglob("*.py")]


def _imports_of(package: str, packages: set[str]) -> set[str]:
    imported: set[str] = set()
    for tree in _trees_of(package):
        for node in ast.walk(tree):
            imported |= {name.split(".")[1] for name in _names(node) if name.startswith("hydet.")}
    return imported & packages


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names that an absolute import may bind or load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reduced(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return (imported, importing) pairs without those that follow from others."""
    reachable = {package: set(direct) for package, direct in imports.items()}
    # Warshall's algorithm: the middle is the outer loop.
    for middle, user, source in product(imports, repeat=3):
        if middle in reachable[user] and source in reachable[middle]:
            reachable[user].add(source)
    if cyclic := sorted(package for package in imports if package in reachable[package]):
        raise ValueError(f"packages import each other in a cycle: {', '.join(cyclic)}")
    order = list(DESCRIPTIONS)
    pairs = [
        (source, user)
        for user, direct in imports.items()
        for source in direct
        if not any(source in reachable[middle] for middle in direct)
    ]
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the graph is out of date"
    )
    if not parser.parse_args().check:
        write()
        return 0
    if outdated():
        print("docs/architecture.md is out of date; run `python docs/write_import_graph.py`")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
