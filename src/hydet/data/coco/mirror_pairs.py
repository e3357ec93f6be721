"""Pairs of left and right keypoints, recognized by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["find_mirror_pairs"]

_Words = tuple[str, ...]  # of a name, in lower case
_Swap = Callable[[_Words, str, str], Iterator[_Words]]

# Words for the two sides, the most certain first. The sides of a horse and of a ship are those of the animal and the
# ship, as "left" and "right" are, so a mirror swaps them too.
_SIDES = (
    ("left", "right"),
    ("lft", "rgt"),
    ("lt", "rt"),
    ("near", "off"),
    ("port", "starboard"),
    ("links", "rechts"),
    ("gauche", "droite"),
    ("左", "右"),
    ("l", "r"),
)
_FUSED = (
    ("left", "right"),
    ("左", "右"),
    ("l", "r"),
)  # also recognized as a part of a word: lefteye, leye, eyel
# LEye, eyeL, l_eye, eye-l, eye1L: an upper-case letter before a word of lower-case ones is a word of its own.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]")


def find_mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names (left, right) that differ only in a word for the side.

    Recognizes ``left_eye``, ``EyeLeft``, ``lefteye``, ``L_Eye``, ``l_eye``, ``eyeL``, ``eye.l``, ``leye``, ``NearEye`` and
    ``OffEye`` and other forms in any case. A name is paired only if its counterpart exists.

    Args:
        names: names of all keypoints.
    """
    words = {name: tuple(word.casefold() for word in _WORD.findall(name)) for name in names}
    partner: dict[str, str] = {}  # of each paired name, in both directions
    pairs: list[tuple[str, str]] = []
    for find, all_sides in ((_swap_words, _SIDES), (_swap_parts, _FUSED)):
        for sides in all_sides:
            free = {w: name for name, w in words.items() if name not in partner}
            for name in names:
                other = _counterpart(words[name], free, find, sides)
                if other is not None and name not in partner and other not in partner and other != name:
                    partner[name], partner[other] = other, name
                    pairs.append((name, other))
    return sorted(pairs, key=lambda pair: min(names.index(name) for name in pair))


def _counterpart(
    words: _Words, free: Mapping[_Words, str], find: _Swap, sides: tuple[str, str]
) -> str | None:
    return next((free[swapped] for swapped in find(words, *sides) if swapped in free), None)


def _swap_words(words: _Words, left: str, right: str) -> Iterator[_Words]:
    """Yield the words with every word for left replaced by the one for right."""
    if left in words:
        yield tuple(right if word == left else word for word in words)


def _swap_parts(words: _Words, left: str, right: str) -> Iterator[_Words]:
    """Yield the words with the start or the end of one of them replaced."""
    for i, word in enumerate(words):
        if word.startswith(left):
            yield (*words[:i], right + word[len(left) :], *words[i + 1 :])
        if word.endswith(left):
            yield (*words[:i], word[: -len(left)] + right, *words[i + 1 :])
