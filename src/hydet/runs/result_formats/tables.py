"""Results as a table of pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from hydet.runs.result import Result

__all__ = ["to_pandas"]


def to_pandas(result: Result) -> DataFrame:
    """Return a table with one row per object.

    Returns:
        The columns ``image``, ``class_id``, ``class_name``, ``score`` and ``x1, y1, x2, y2`` or
        ``cx, cy, w, h, angle``.

    Raises:
        ImportError: if pandas is not installed; the message says how to install it.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install 'hydet[pandas]'") from error
    columns: dict[str, Any] = {
        "image": [result.name] * len(result),
        "class_id": result.class_ids.numpy(),
        "class_name": result.class_names,
        "score": result.scores.numpy(),
    }
    names = ("cx", "cy", "w", "h", "angle") if result.is_rotated else ("x1", "y1", "x2", "y2")
    columns |= {name: result.boxes[:, i].numpy() for i, name in enumerate(names)}
    return DataFrame(columns)
