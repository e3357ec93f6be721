"""Test-time augmentation of proposal networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hydet.modeling.meta_arch.limits import detection_limits
from hydet.modeling.protocols import Detector
from hydet.modeling.selection.pooled import select_pooled
from hydet.structures import Instances, ModelInput, ModelOutput

from .dataset_mapper import AugmentedInput
from .with_tta import TTAMapper, WithTTA, chunks, output_frame

__all__ = ["ProposalNetworkWithTTA"]


class ProposalNetworkWithTTA(WithTTA):
    """A proposal network with test-time augmentation.

    Proposals of all augmented images, upright or rotated, are mapped back to the output frame and suppressed together.
    A single augmented image needs no suppression: its network has suppressed its proposals, level by level.

    ``model`` predicts ``proposals`` with ``proposal_boxes`` and ``objectness_logits``.

    Args:
        model: such as a ``ProposalNetwork``, in evaluation mode.
        tta_mapper: makes the augmented inputs.
        batch_size: number of augmented images per forward pass.
        nms_thresh: IoU above which the lower-scoring one of two proposals is dropped; by default that of the model.
        topk_per_image: maximum number of proposals per image, negative for all; by default that of the model.
    """

    def __init__(
        self,
        *,
        model: Detector,
        tta_mapper: TTAMapper,
        batch_size: int = 3,
        nms_thresh: float | None = None,
        topk_per_image: int | None = None,
    ) -> None:
        super().__init__(model=model, tta_mapper=tta_mapper, batch_size=batch_size)
        limits = detection_limits(model)
        self.nms_thresh = limits.nms_thresh if nms_thresh is None else nms_thresh
        self.topk_per_image = limits.topk_per_image if topk_per_image is None else topk_per_image

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        augmented, frame = self.tta_mapper(entry), output_frame(entry)
        proposals: list[Instances] = []
        for chunk in chunks(augmented, self.batch_size):
            # Request results in the frame of each augmented image, from which its transform maps them back.
            inputs: list[AugmentedInput] = [
                {**item, "height": item["transforms"].target[0], "width": item["transforms"].target[1]}
                for item in chunk
            ]
            for item, output in zip(chunk, self.model.inference(inputs), strict=True):
                predicted = output["proposals"]
                boxes = item["transforms"].invert_boxes(predicted.proposal_boxes.tensor)
                proposals.append(
                    Instances(
                        frame,
                        proposal_boxes=type(predicted.proposal_boxes)(boxes),
                        objectness_logits=predicted.objectness_logits,
                    )
                )
        return {"proposals": self._select(proposals)}

    def _select(self, proposals: Sequence[Instances]) -> Instances:
        if len(proposals) == 1:
            return proposals[0]
        pooled = Instances.cat(proposals)
        selected = select_pooled(
            pooled.proposal_boxes.tensor,
            pooled.objectness_logits,
            torch.zeros_like(pooled.objectness_logits, dtype=torch.int64),
            score_thresh=-torch.inf,  # logits have any sign
            nms_thresh=self.nms_thresh,
            topk=self.topk_per_image,
        )
        return pooled[selected]
