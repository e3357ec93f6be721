"""Read a checkpoint's ``config.yaml``, which may come from an untrusted source, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

__all__ = ["read_config_file"]

# The largest published models have resolved configs of 2,000 values and 20 levels. A config with 20,000 class names, each
# repeated three times, has 60,000 values in 2 MB. A file beyond these limits is assumed to be an attack on memory.
MAX_BYTES = 16 * 2**20
MAX_DEPTH = 60
MAX_VALUES = 500_000


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return what a YAML file holds: dicts with scalar keys, lists, strings, numbers, booleans and None.

    Strings are not interpreted: an interpolation stays text. Aliases count as often as they are used, so that a file
    of a few lines cannot unfold into millions of values.

    Raises:
        ValueError: if the file is missing, too large, too deep, not YAML, or holds anything but a mapping of plain
            values; the message names the file.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a FIFO or a device would block
            raise ValueError("no such file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
        text = path.read_text(encoding="utf-8")
        _check_size(text)
        # OmegaConf's loader is PyYAML's safe loader that also reads "1e-3" as a number and refuses repeated keys.
        content = yaml.load(text, Loader=get_yaml_loader())
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not a mapping")
        _check_types(content, "")
    except (OSError, ValueError, RecursionError, OverflowError, yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return content


def _check_size(text: str) -> None:
    """Count values and levels from the stream of parser events, before any value is built."""
    sizes_of_anchors: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and number of values before it
    total = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes_of_anchors:
                raise ValueError(f"the alias *{event.anchor} is inside its own anchor or has none")
            total += sizes_of_anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes_of_anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            if event.anchor is not None:
                sizes_of_anchors.pop(event.anchor, None)
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > MAX_DEPTH:
                raise ValueError(f"it has more than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes_of_anchors[anchor] = total - before + 1
        if total > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values, aliases included")


def _check_types(value: object, key: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str | int | float | bool):
                raise ValueError(f"{key or 'the file'} has a key of type {type(name).__name__}")
            _check_types(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_types(item, f"{key}[{i}]")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{key} is a {type(value).__name__}")
