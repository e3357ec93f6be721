"""Translation of the names in a state dict by rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

__all__: list[str] = []

# A pattern that matches a whole name, and the new name: a template as in re.sub, or a function of the match.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

UNKNOWN = "no counterpart in hydet"


class Translation(NamedTuple):
    """State dict in hydet's names.

    Attributes:
        tensors: the weights by their new names.
        renamed: names in the file by the new names, for those that changed.
        skipped: reasons by name in the file, for values without a new name.
    """

    tensors: dict[str, Tensor]
    renamed: dict[str, str]
    skipped: dict[str, str]


def translate(tensors: Mapping[str, Tensor], rules: Iterable[Rule]) -> Translation:
    """Rename tensors by the first rule that fits each name; names that none fits are skipped."""
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    result = Translation({}, {}, {})
    for name, tensor in tensors.items():
        for pattern, new in compiled:
            match = pattern.fullmatch(name)
            if match is not None:
                new_name = match.expand(new) if isinstance(new, str) else new(match)
                result.tensors[new_name] = tensor
                if new_name != name:
                    result.renamed[new_name] = name
                break
        else:
            result.skipped[name] = UNKNOWN
    return result


def shifted(template: str, offset: int) -> Callable[[re.Match[str]], str]:
    """Return a function for ``Rule``: the template with ``#`` in place of the first group plus ``offset``."""

    def rename(match: re.Match[str]) -> str:
        return match.expand(template.replace("#", str(int(match[1]) + offset)))

    return rename


def count_children(names: Iterable[str], prefix: str) -> int:
    """Return the number of numbered modules below ``prefix``, such as 4 for ``prefix.0.x`` to ``prefix.3.x``."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    matches = (pattern.match(name) for name in names)
    return len({match[1] for match in matches if match is not None})


def layer_widths(tensors: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the output channels of the layers ``prefix1``, ``prefix2``, ..."""
    widths: list[int] = []
    while f"{prefix}{len(widths) + 1}.weight" in tensors:
        widths.append(tensors[f"{prefix}{len(widths) + 1}.weight"].shape[0])
    return widths


def take_rows(tensor: Tensor, rows: Sequence[int], values_per_row: int = 1) -> Tensor:
    """Select and order the rows of a predictor, each of which has ``values_per_row`` outputs."""
    split: Tensor = tensor.unflatten(0, (-1, values_per_row))
    return split[list(rows)].flatten(0, 1)
