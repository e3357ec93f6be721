"""Where weights are: a file, an address, or the name of a published recipe."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from hydet.data import DataError

from .downloads import check_hash, download
from .recipes import is_recipe, recipe, recipes

__all__ = ["cache_folder", "cached_path", "find_weights", "is_remote", "locate", "resolve_url"]

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
# Files of the Caffe2 catalog, which are below another prefix and in numbered folders.
_CAFFE2 = "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/"
_CATALOG = {
    "ImageNetPretrained/MSRA/R-50": _CAFFE2 + "MSRA/R-50.pkl",
    "ImageNetPretrained/MSRA/R-101": _CAFFE2 + "MSRA/R-101.pkl",
    "ImageNetPretrained/FAIR/R-50-GN": _CAFFE2 + "47261647/R-50-GN.pkl",
    "ImageNetPretrained/FAIR/R-101-GN": _CAFFE2 + "47592356/R-101-GN.pkl",
    "ImageNetPretrained/FAIR/X-101-32x8d": _CAFFE2 + "20171220/X-101-32x8d.pkl",
    "ImageNetPretrained/FAIR/X-101-64x4d": _CAFFE2 + "FBResNeXt/X-101-64x4d.pkl",
    "ImageNetPretrained/FAIR/X-152-32x8d-IN5k": _CAFFE2 + "25093814/X-152-32x8d-IN5k.pkl",
}
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_SUFFIX_MATCHING = "matching_heuristics"  # behind `?`, as in the reference zoo
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@=-]")
_MAX_PART = 100  # characters in a file name; most file systems allow 255 bytes


def find_weights(source: str | Path, *, sha256: str | None = None) -> Path:
    """Return the path of weights on this machine, after a download if necessary.

    Downloads stay in the folder of ``cache_folder``, and are not repeated.

    Args:
        source: an existing file or folder, which is returned as it is; an address (``https://``, ``http://``,
            ``detectron2://`` or ``catalog://``); or the name of a published recipe, which stands for its trained model.
            ``?matching_heuristics=True`` may follow, as in configs of the reference, and ``#sha256=...`` with a hash.
        sha256: hash of the file in hexadecimal digits, which is compared if given.

    Raises:
        FileNotFoundError: if ``source`` is nothing of this.
        DataError: if the download fails, or the hash differs. The message says where to put the file by hand.
        WriteError: if the cache cannot be written.
    """
    if Path(source).exists():
        check_hash(Path(source), sha256)
        return Path(source)
    text, fragment_hash = _split_hash(str(source))
    url = resolve_url(text)
    if url is not None:
        return download(url, cached_path(url), sha256=sha256 or fragment_hash)
    path = Path(_without_matching(text))
    if not path.exists():
        near = difflib.get_close_matches(text, recipes(), n=1)
        hint = f"; did you mean the recipe {near[0]}?" if near else ""
        raise FileNotFoundError(f"weights {source}: no such file{hint}")
    return find_weights(path, sha256=sha256 or fragment_hash)


def is_remote(source: str | Path) -> bool:
    """Return True if ``find_weights`` may have to download ``source``: an address, or the name of a recipe.

    A file or folder of that name takes precedence.
    """
    text = str(source)
    if _SCHEME.match(text):
        return True
    name = _without_matching(_split_hash(text)[0])
    return isinstance(source, str) and is_recipe(name) and not Path(text).exists()


def locate(source: str | Path) -> tuple[Path, bool | None]:
    """Return the path of a source, after a download if necessary, and ``by_suffix`` for ``read_foreign``.

    Args:
        source: see ``find_weights``; a path may also be missing.

    Raises:
        DataError: if the download fails.
    """
    if Path(source).exists():
        return Path(source), None
    address = _split_hash(str(source))[0]
    hints = [value for key, value in parse_qsl(address.partition("?")[2]) if key == _SUFFIX_MATCHING]
    path = find_weights(source) if is_remote(source) else Path(_without_matching(address))
    return path, True if hints == ["True"] else None


def resolve_url(source: str) -> str | None:
    """Return the ``https`` or ``http`` address of a source, or None if it is a path.

    Raises:
        DataError: if the recipe has no trained model, the catalog has no such entry, or the scheme is not known.
    """
    source = _without_matching(source)
    match = _SCHEME.fullmatch(source)
    if match is None:
        return _trained_model(source) if is_recipe(source) else None
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme == "detectron2":
        return DETECTRON2 + rest.lstrip("/")
    if scheme == "catalog":
        return _catalog_entry(source, rest)
    if scheme not in ("https", "http"):
        raise DataError(
            f"{source}: {scheme}:// is not supported, only https, http, detectron2 and catalog; download the file and "
            "pass its path"
        )
    return source


def cached_path(url: str) -> Path:
    """Return where the download of an address is stored: below ``weights`` in the cache, by host and path.

    Args:
        url: an ``https`` or ``http`` address. Queries, and characters that file systems do not allow everywhere, are
            replaced by a short hash of the address.
    """
    parts = urlsplit(url)
    host = _safe_name(parts.netloc.rpartition("@")[2].lower())
    names = [part for part in parts.path.split("/") if part] or ["index"]
    safe = [_safe_name(name) for name in names]
    if parts.query or safe != names:
        digest = hashlib.sha256(url.encode()).hexdigest()[:12]
        last = Path(safe[-1])
        safe[-1] = f"{last.stem}-{digest}{last.suffix}"
    return cache_folder().joinpath("weights", host, *safe)


def cache_folder() -> Path:
    """Return the folder for downloads: ``HYDET_CACHE``, or ``hydet`` in the user's cache folder."""
    chosen = os.environ.get("HYDET_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hydet"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hydet" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hydet"


def _trained_model(name: str) -> str:
    url = recipe(name).url
    if url is None:
        raise DataError(
            f"no trained model of the recipe {name} was published; it can be trained with experiment={name}"
        )
    return url


def _catalog_entry(source: str, rest: str) -> str:
    name = rest.strip("/").removesuffix(".pkl")
    if name not in _CATALOG:
        raise DataError(f"{source}: the catalog has no such entry; it has {', '.join(_CATALOG)}")
    return _CATALOG[name]


def _split_hash(source: str) -> tuple[str, str | None]:
    address, separator, digest = source.partition("#sha256=")
    return address, digest if separator else None


def _without_matching(source: str) -> str:
    """Return a source without ``?matching_heuristics=...``; other queries stay."""
    address, separator, query = source.partition("?")
    if _SUFFIX_MATCHING not in query:
        return source
    rest = [pair for pair in query.split("&") if pair.partition("=")[0] != _SUFFIX_MATCHING]
    return address + (separator + "&".join(rest) if rest else "")


def _safe_name(name: str) -> str:
    """Return a name that is valid in every file system and never ``.`` or ``..``."""
    return _UNSAFE.sub("_", name).strip(".")[:_MAX_PART] or "_"
