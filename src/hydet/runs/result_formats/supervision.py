"""Results as detections of supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hydet.data.coco.rotated_shapes import corners_of

if TYPE_CHECKING:
    from supervision import Detections

    from hydet.runs.result import Result

__all__ = ["to_supervision"]


def to_supervision(result: Result) -> Detections:
    """Return the objects as ``supervision.Detections``.

    Returns:
        ``data["class_name"]`` holds the names. Rotated boxes are in ``data`` as supervision expects them, with the
        boxes around them in ``xyxy``; keypoints are in ``data["keypoints"]``, ``(N, P, 3)``.

    Raises:
        ImportError: if supervision is not installed; the message says how to install it.
    """
    try:
        import supervision as sv
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install 'hydet[supervision]'") from error
    boxes = result.boxes.numpy().astype(np.float32)
    data: dict[str, Any] = {"class_name": np.array(result.class_names, dtype=str)}
    if result.is_rotated:
        corners = np.array([corners_of(box) for box in boxes.tolist()], dtype=np.float32).reshape(-1, 4, 2)
        data["xyxyxyxy"] = corners
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    if result.keypoints is not None:
        data["keypoints"] = result.keypoints.numpy()
    masks = result.masks
    return sv.Detections(
        xyxy=boxes.reshape(-1, 4),
        mask=None if masks is None else masks.numpy(),
        confidence=result.scores.numpy(),
        class_id=result.class_ids.numpy(),
        data=data,
    )
