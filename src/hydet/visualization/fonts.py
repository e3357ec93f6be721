"""Fonts that have the characters of a text.

Text in ASCII is drawn in the font that comes with Pillow. For other characters, the first font that has all of them is
taken: the ones of matplotlib if it is installed, then those of the operating system and of the user.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import ImageDraw, ImageFont

__all__ = ["DrawableText", "Font", "drawable_text", "shorten"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# Starts of the file names of fonts to try first: Latin, Cyrillic and Greek, then Chinese, Japanese and Korean.
_PREFERRED = (
    "dejavusans.", "notosans-regular", "segoeui.", "arial.", "notosanscjk", "notosanssc", "notosansjp", "notosanskr",
    "sourcehansans", "wqy", "droidsansfallback", "arial unicode", "pingfang", "hiragino sans gb", "stheiti",
    "applesdgothicneo", "msyh", "yugoth", "msgothic", "malgun", "simsun", "ipag", "takaogothic", "nanumgothic",
)  # fmt: skip
_NO_CHARACTER = "\U0010fffe"  # Unicode assigns no character to this number, so fonts draw their empty box
_TEST_SIZE = 16
# Letters that Unicode does not decompose into ASCII letters and accents.
_CYRILLIC = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ж": "zh", "з": "z", "и": "i", "й": "y",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u",
    "ф": "f", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "'", "ы": "y", "ь": "'",
    "э": "e", "ю": "yu", "я": "ya",
}  # fmt: skip
_GREEK = {
    "α": "a", "β": "b", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k",
    "λ": "l", "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t",
    "υ": "y", "φ": "f", "χ": "ch", "ψ": "ps", "ω": "o",
}  # fmt: skip
_LATIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ı": "i", "þ": "th", "ð": "d"}
_ASCII_OF = {**_CYRILLIC, **_GREEK, **_LATIN}


class DrawableText(NamedTuple):
    """A text without line breaks, and a font that has its characters."""

    text: str
    font: Font


def drawable_text(text: str, size: int) -> DrawableText:
    r"""Return a text as it can be drawn, and the font to draw it in.

    Line breaks and other control characters are escaped. Characters that no font has become ASCII: letters without
    their accents, Cyrillic and Greek letters in Latin ones, and others as escapes such as ``\u6f22``.

    Args:
        text: any text, such as the name of a class.
        size: height of the font in pixels.
    """
    text = _printable(unicodedata.normalize("NFC", text))
    characters = "".join(sorted({c for c in text if not c.isascii()}))
    if not characters:
        return DrawableText(text, _load(None, size))
    file, missing = _choose_font(characters)
    shown = "".join(_ascii_form(c) if c in missing else c for c in text)
    return DrawableText(shown, _load(file, size))


def shorten(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    """Cut the end of ``text``, which has no line breaks, so that it fits into ``width`` pixels."""
    if len(text) <= width and draw.textlength(text, font=font) <= width:
        return text
    text = text[: int(width)]  # a character is wider than a pixel
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


def _printable(text: str) -> str:
    """Escape control characters and drop invisible ones, except those that join letters."""
    parts = []
    for c in text:
        category = unicodedata.category(c)
        if c.isprintable() or c in "\u200c\u200d":
            parts.append(c)
        elif category == "Zs":
            parts.append(" ")
        elif category != "Cf":
            parts.append(c.encode("unicode_escape").decode("ascii"))
    return "".join(parts)


def _ascii_form(character: str) -> str:
    """Return ASCII letters for a character, or else its escape; nothing for an accent or an invisible character."""
    if character.lower() in _ASCII_OF:  # also й, which would be и with an accent
        letters = _ASCII_OF[character.lower()]
        return letters.capitalize() if character.isupper() else letters
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    parts = []
    for c in base:
        if unicodedata.category(c) in ("Cf", "Mn"):
            continue
        if not c.isascii() and c.lower() not in _ASCII_OF:
            return character.encode("unicode_escape").decode("ascii")
        parts.append(c if c.isascii() else _ascii_form(c))
    return "".join(parts)


@functools.lru_cache(maxsize=1024)
def _choose_font(characters: str) -> tuple[Path | None, frozenset[str]]:
    """Return the file of the first font that has most of the characters, and those that it lacks."""
    best: Path | None = None
    missing = frozenset(c for c in characters if not _has_glyph(None, c))
    for file in _font_files():
        if not missing:
            break
        lacking = frozenset(c for c in characters if not _has_glyph(file, c))
        # Escapes, scores and the names of other classes are in ASCII, which fonts of symbols lack.
        if len(lacking) < len(missing) and _has_glyph(file, "A"):
            best, missing = file, lacking
    return best, missing


@functools.lru_cache(maxsize=65536)
def _has_glyph(file: Path | None, character: str) -> bool:
    try:
        font = _load(file, _TEST_SIZE)
        return _drawn(font, character) != _empty_box(file)
    except (OSError, ValueError):  # a font of one size only, such as one of colored emoji, or a broken file
        return False


@functools.lru_cache(maxsize=1024)
def _empty_box(file: Path | None) -> tuple[tuple[int, int], bytes]:
    """Return what a font draws in place of a character that it lacks."""
    return _drawn(_load(file, _TEST_SIZE), _NO_CHARACTER)


def _drawn(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=64)
def _load(file: Path | None, size: int) -> Font:
    """Return a font, ``size`` pixels high; None stands for the font that comes with Pillow."""
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


@functools.cache
def _font_files() -> tuple[Path, ...]:
    """Return the font files of this machine, preferred ones first, and of the others regular ones first."""
    files = {file for folder in _font_folders() for file in _files_below(folder)}

    def rank(file: Path) -> tuple[int, bool, str, str]:
        name = file.name.lower()
        preferred = [i for i, start in enumerate(_PREFERRED) if name.startswith(start)]
        is_styled = any(style in name for style in ("bold", "italic", "oblique", "light", "thin", "black"))
        return (preferred[0] if preferred else len(_PREFERRED), is_styled, name, str(file))

    return tuple(sorted(files, key=rank))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):  # it passes over folders that cannot be read
        yield from (Path(parent, name) for name in names if name.lower().endswith(_SUFFIXES))


def _font_folders() -> list[Path]:
    """Return the folders in which the operating system and its users keep fonts; they may not exist."""
    folders = []
    matplotlib = importlib.util.find_spec("matplotlib")  # found without importing it
    if matplotlib is not None and matplotlib.origin is not None:
        folders.append(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf")
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        folders.append(Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts")
        local = os.environ.get("LOCALAPPDATA")
        folders += [Path(local) / "Microsoft" / "Windows" / "Fonts"] if local else []
    elif sys.platform == "darwin":
        folders += [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    else:
        data = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
        folders += [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path(data) / "fonts"]
        folders.append(home / ".fonts")
    return folders
