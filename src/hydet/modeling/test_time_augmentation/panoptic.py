"""Test-time augmentation of panoptic segmentation."""

from __future__ import annotations

from typing import Any

from hydet.modeling.meta_arch import PanopticFPN, combine_semantic_and_instance_outputs
from hydet.modeling.meta_arch.semantic_segmentor import predict_logits
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.structures import Instances, ModelInput, ModelOutput, semantic_labels

from .rcnn import GeneralizedRCNNWithTTA
from .semantic import ProbabilityAverage
from .with_tta import TTAMapper, chunks, output_frame

__all__ = ["PanopticFPNWithTTA"]


class PanopticFPNWithTTA(GeneralizedRCNNWithTTA):
    """``PanopticFPN`` with test-time augmentation.

    Instances and semantic probabilities are merged separately, and the merged results are combined into segments with
    the thresholds of the model. Keys of a result are those of ``PanopticFPN``.

    Args:
        model: a ``PanopticFPN``.
        tta_mapper: makes the augmented inputs; ``default_mapper()`` by default.
        batch_size: number of augmented images per forward pass.
        **kwargs: thresholds and ``keypoint_flip_indices``; see ``DetectorWithTTA``.

    Raises:
        ValueError: if ``model`` is not a ``PanopticFPN``.
    """

    model: PanopticFPN

    def __init__(
        self,
        *,
        model: PanopticFPN,
        tta_mapper: TTAMapper | None = None,
        batch_size: int = 3,
        **kwargs: Any,
    ) -> None:
        if not isinstance(model, PanopticFPN):
            raise ValueError(f"PanopticFPNWithTTA needs a PanopticFPN, got {type(model).__name__}")
        super().__init__(model=model, tta_mapper=tta_mapper, batch_size=batch_size, **kwargs)

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        model, frame = self.model, output_frame(entry)
        augmented = self.tta_mapper(entry)
        detections: list[Instances] = []
        average = ProbabilityAverage()
        for chunk in chunks(augmented, self.batch_size):
            images, features = self._features(chunk)
            logits = predict_logits(model.sem_seg_head, features)
            proposals = model.get_proposals(chunk, images, features)
            detections += model.roi_heads.detect_boxes(images, features, proposals)
            for item, scores, size in zip(chunk, logits, images.image_sizes, strict=True):
                average.add(sem_seg_postprocess(scores, size, *frame), flipped=item["transforms"].flip)
        merged = self._merge_with_regions(detections, augmented, entry)
        sem_seg = average.log_mean()
        panoptic_seg = combine_semantic_and_instance_outputs(
            merged,
            semantic_labels(sem_seg),
            model.combine_overlap_thresh,
            model.combine_stuff_area_thresh,
            model.combine_instances_score_thresh,
        )
        return {"sem_seg": sem_seg, "instances": merged, "panoptic_seg": panoptic_seg}
