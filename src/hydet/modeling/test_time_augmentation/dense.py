"""Test-time augmentation of dense detectors."""

from __future__ import annotations

from hydet.structures import Instances, ModelInput, ModelOutput

from .dataset_mapper import AugmentedInput
from .with_tta import DetectorWithTTA, chunks, output_frame

__all__ = ["DenseDetectorWithTTA"]


class DenseDetectorWithTTA(DetectorWithTTA):
    """A detector without region heads, such as RetinaNet or FCOS, with test-time augmentation.

    ``model`` predicts ``instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``; other fields are dropped.
    """

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        augmented = self.tta_mapper(entry)
        detections: list[Instances] = []
        for chunk in chunks(augmented, self.batch_size):
            # Request results in the frame of each augmented image, from which its transform maps them back.
            inputs: list[AugmentedInput] = [
                {**item, "height": int(item["image"].shape[1]), "width": int(item["image"].shape[2])}
                for item in chunk
            ]
            detections += [output["instances"] for output in self.model.inference(inputs)]
        return {"instances": self._merge(detections, augmented, output_frame(entry))}
