"""Images at web addresses."""

from __future__ import annotations

import urllib.error
import urllib.request

from hydet.data import DataError
from hydet.data.images.files import describe_error

__all__ = ["download_image", "is_address"]

_TIMEOUT = 30  # seconds without an answer of the server


def is_address(text: str) -> bool:
    """Return True for ``http://`` and ``https://`` addresses."""
    return text.lower().startswith(("http://", "https://"))


def download_image(address: str, *, max_bytes: int) -> bytes:
    """Download the file at a web address into memory.

    Args:
        address: an ``http://`` or ``https://`` address.
        max_bytes: largest size in bytes.

    Raises:
        DataError: if the server cannot be reached, answers with an error, or sends too many bytes; names the address.
    """
    # Some servers refuse the name that urllib gives itself.
    request = urllib.request.Request(address, headers={"User-Agent": "hydet"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(max_bytes + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise DataError(f"{address}: the server answers {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:  # no network, an unknown host, a broken address
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{address}: {describe_error(reason) if isinstance(reason, Exception) else reason}"
        ) from error
    if len(content) > max_bytes:
        raise DataError(f"{address}: the file has more than {max_bytes / 1e9:.1f} GB, too many for an image")
    return content
