"""The import of PyAV, which is optional."""

from __future__ import annotations

from types import ModuleType

__all__ = ["import_av"]


def import_av() -> ModuleType:
    """Return the module ``av``.

    Raises:
        ImportError: if it is not installed; the message says how to install it.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install 'hydet[video]'") from error
    module: ModuleType = av
    return module
