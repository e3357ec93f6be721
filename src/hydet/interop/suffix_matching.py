"""Match names in a weight file with the ends of names in a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from hydet.data import DataError

from .foreign import ForeignWeights

__all__ = ["match_by_suffix", "match_names"]


def match_names(names_in_file: Iterable[str], names_in_model: Iterable[str], path: Path) -> dict[str, str]:
    """Return the name in the file for each name in the model that has one.

    A name in the file fits a name in the model if they are equal, or the name in the model ends in a dot and the name
    in the file. If several fit, the longest is used.

    Args:
        names_in_file: names such as ``res2.0.conv1.weight``.
        names_in_model: names such as ``backbone.bottom_up.res2.0.conv1.weight``.
        path: the file, for messages.

    Raises:
        DataError: if a name in the file fits two names in the model; the weights belong to one, and the file does not
            say which.
    """
    available = set(names_in_file)
    matches: dict[str, str] = {}
    users: dict[str, str] = {}
    for name in names_in_model:
        match = next((suffix for suffix in _suffixes(name) if suffix in available), None)
        if match is None:
            continue
        if match in users:
            raise DataError(
                f"{path}: {match} fits two tensors of the model, {users[match]} and {name}; save the weights with the full "
                "names of the model"
            )
        matches[name], users[match] = match, name
    return matches


def match_by_suffix(weights: ForeignWeights, names_in_model: Iterable[str]) -> ForeignWeights:
    """Return weights with the full names of a model; tensors that fit none keep their names.

    If more of the names in the file fit than of the converted names, the names in the file are used.

    Args:
        weights: content of a file.
        names_in_model: names in the state dict of the model.

    Raises:
        DataError: see ``match_names``.
    """
    names_in_model = list(names_in_model)
    if weights.unconverted is not None:
        ends = {end for name in names_in_model for end in _suffixes(name)}
        if len(ends & set(weights.unconverted)) > len(ends & set(weights.tensors)):
            weights = replace(weights, tensors=weights.unconverted, renamed={}, skipped={})
    matches = match_names(weights.tensors, names_in_model, weights.path)
    in_model = {match: name for name, match in matches.items()}
    tensors = {in_model.get(name, name): tensor for name, tensor in weights.tensors.items()}
    renamed = dict(_renamed(weights, in_model))
    return replace(weights, tensors=tensors, renamed=renamed, by_suffix=False)


def _renamed(weights: ForeignWeights, in_model: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name in weights.tensors:
        original = weights.renamed.get(name, name)
        if in_model.get(name, name) != original:
            yield in_model.get(name, name), original


def _suffixes(name: str) -> Iterable[str]:
    """Yield the ends of a dotted name, longest first."""
    while name:
        yield name
        name = name.partition(".")[2]
