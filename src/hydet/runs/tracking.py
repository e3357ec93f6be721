"""Objects that keep a number from frame to frame of a video."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydet.structures import Instances
from hydet.structures.box_ops import enclosing_boxes

__all__ = ["NO_TRACK", "ObjectTracker"]

NO_TRACK = -1


class ObjectTracker:
    """Follows the objects of each class through the frames of a video with ByteTrack.

    Args:
        rate: frames per second.
        score_threshold: objects with a higher score start tracks; those with a lower score only continue them.
        lost_after: seconds until a track without detections ends.

    Raises:
        ImportError: if the package trackers is not installed.

    Source: Zhang et al. 2022, ByteTrack (arXiv:2110.06864).
    """

    def __init__(self, *, rate: float, score_threshold: float = 0.5, lost_after: float = 1.0) -> None:
        self._make_tracker, self._make_detections = _import_trackers()
        self._settings: dict[str, Any] = {
            "frame_rate": float(rate),
            "lost_track_buffer": round(30 * lost_after),  # counted in frames of a video with 30 per second
            "track_activation_threshold": score_threshold,
            "high_conf_det_threshold": score_threshold,
            "minimum_consecutive_frames": 1,
        }
        # A tracker compares boxes alone, so each class has its own, and an id of its own for each pair.
        self._trackers: dict[int, Any] = {}
        self._ids: dict[tuple[int, int], int] = {}

    def update(self, instances: Instances, *, time: float) -> Instances:
        """Return the objects of the next frame with ``track_ids``.

        Args:
            instances: on the CPU, with ``pred_boxes``, ``scores`` and ``pred_classes``.
            time: when the frame is shown, in seconds.

        Returns:
            The same objects with ``track_ids``, ``(N,)`` int64 from 1; -1 for objects without a track, as each has none
            in its first frame.
        """
        boxes = instances.pred_boxes.tensor
        boxes = enclosing_boxes(boxes) if boxes.shape[1] == 5 else boxes
        classes = instances.pred_classes
        track_ids = torch.full((len(instances),), NO_TRACK, dtype=torch.int64)
        for label in sorted({*classes.tolist(), *self._trackers}):
            rows = (classes == label).nonzero().flatten()
            track_ids[rows] = self._update_class(label, boxes[rows], instances.scores[rows], time)
        return Instances(instances.image_size, **{**instances.get_fields(), "track_ids": track_ids})

    def _update_class(self, label: int, boxes: Tensor, scores: Tensor, time: float) -> Tensor:
        if label not in self._trackers:
            self._trackers[label] = self._make_tracker(**self._settings)
        detections = self._make_detections(
            xyxy=boxes.float().numpy().reshape(-1, 4),
            confidence=scores.float().numpy(),
            class_id=np.full(len(scores), label),
            data={"row": np.arange(len(scores))},
        )
        tracked = self._trackers[label].update(detections, timestamp=time)
        track_ids = torch.full((len(scores),), NO_TRACK, dtype=torch.int64)
        if len(tracked) == 0 or tracked.tracker_id is None:
            return track_ids
        for row, number in zip(tracked.data["row"].tolist(), tracked.tracker_id.tolist(), strict=True):
            if number != NO_TRACK:
                track_ids[row] = self._ids.setdefault((label, number), len(self._ids) + 1)
        return track_ids


def _import_trackers() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # supervision warns that OpenCV is missing, which it does not need here
            import supervision
            import trackers
    except ImportError as error:
        raise ImportError("tracking needs the package trackers: pip install 'hydet[track]'") from error
    return trackers.ByteTrackTracker, supervision.Detections
