"""Configs of mmdet in the text form that checkpoints store, read without running them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

__all__: list[str] = []

_MAX_LENGTH = 1 << 20  # a config has about ten thousand characters


def read_model_config(text: object) -> dict[str, object]:
    """Return the value of ``model`` in the text of a config, or an empty dict if it cannot be read.

    Only literals and ``dict(...)`` are evaluated, of which the texts that mmengine writes consist.

    Args:
        text: Python assignments.
    """
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        return {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and _names(statement) == ["model"]:
                value = _evaluate(statement.value)
                return value if isinstance(value, dict) else {}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return {}


def look_up(config: Mapping[str, object], path: str, default: object) -> object:
    """Return the value at a dotted path, or the default if there is none."""
    value: object = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value


def number_at(config: Mapping[str, object], path: str, default: float) -> float:
    """Return the number at a dotted path, or the default if there is none."""
    value = look_up(config, path, default)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def numbers_at(config: Mapping[str, object], path: str, default: Sequence[float]) -> list[float]:
    """Return the list of numbers at a dotted path, or the default if there is none."""
    value = look_up(config, path, default)
    if not isinstance(value, Sequence) or not all(isinstance(v, int | float) for v in value):
        return list(default)
    return [float(v) for v in value]


def _names(statement: ast.Assign) -> list[str]:
    return [target.id for target in statement.targets if isinstance(target, ast.Name)]


def _evaluate(node: ast.expr) -> object:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("dict with other arguments than keywords")
        return {str(keyword.arg): _evaluate(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(map(str, keys), map(_evaluate, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_evaluate(value) for value in node.elts]
    value: object = ast.literal_eval(node)
    return value
