"""Images to predict, from files, folders, addresses, arrays and iterables, read one at a time."""

from .opening import Source, open_source
from .source_image import SourceImage

__all__ = ["Source", "SourceImage", "open_source"]
