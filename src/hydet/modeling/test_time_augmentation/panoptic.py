"""Test-time augmentation of panoptic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydet.modeling.meta_arch import GeneralizedRCNN, combine_semantic_and_instance_outputs
from hydet.modeling.postprocessing import sem_seg_postprocess
from hydet.structures import Instances

from .rcnn import GeneralizedRCNNWithTTA, boxes_only
from .semantic import SummedProbabilities
from .with_tta import chunks

__all__ = ["PanopticFPNWithTTA"]


class PanopticFPNWithTTA(GeneralizedRCNNWithTTA):
    """``PanopticFPN`` with test-time augmentation: instances and semantics are merged, then combined as ever.

    Its ``model`` is a ``PanopticFPN``; arguments and results are otherwise those of ``GeneralizedRCNNWithTTA`` and
    ``PanopticFPN``.
    """

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        model, frame = self.model, (int(entry["height"]), int(entry["width"]))
        augmented = self.tta_mapper(entry)
        found: list[Instances] = []
        total = SummedProbabilities()
        with boxes_only(model.roi_heads):
            for chunk in chunks(augmented, self.batch_size):
                instances, logits = model.inference(chunk, do_postprocess=False)
                found += instances
                for a, scores in zip(chunk, logits, strict=True):
                    size = (int(a["image"].shape[1]), int(a["image"].shape[2]))
                    total.add(sem_seg_postprocess(scores, size, *frame), flipped=a["transforms"].flip)
        merged = self._merged_instances(found, augmented, entry)
        sem_seg = total.log_mean()
        panoptic_seg = combine_semantic_and_instance_outputs(
            merged,
            sem_seg.argmax(dim=0),
            model.combine_overlap_thresh,
            model.combine_stuff_area_thresh,
            model.combine_instances_score_thresh,
        )
        return {"sem_seg": sem_seg, "instances": merged, "panoptic_seg": panoptic_seg}

    def _with_given_boxes(
        self, chunk: Sequence[Mapping[str, Any]], known: Sequence[Instances]
    ) -> list[Instances]:
        return GeneralizedRCNN.inference(self.model, chunk, known, do_postprocess=False)
