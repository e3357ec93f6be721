"""Test-time augmentation of dense detectors."""

from __future__ import annotations

from typing import Any

from .with_tta import DetectorWithTTA, chunks

__all__ = ["DenseDetectorWithTTA"]


class DenseDetectorWithTTA(DetectorWithTTA):
    """RetinaNet, FCOS or any detector whose results have ``pred_boxes``, with test-time augmentation.

    Its ``model`` has ``num_classes``, and gives ``{"instances": Instances}`` for each input.
    """

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        augmented = self.tta_mapper(entry)
        found = []
        for chunk in chunks(augmented, self.batch_size):
            own_frame = [
                {**a, "height": int(a["image"].shape[1]), "width": int(a["image"].shape[2])} for a in chunk
            ]
            found += [output["instances"] for output in self.model.inference(own_frame)]
        frame = (int(entry["height"]), int(entry["width"]))
        return {"instances": self._merge(found, augmented, frame, self.model.num_classes)}
