"""Test-time augmentation of semantic segmentation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .with_tta import WithTTA, chunks

__all__ = ["SemanticSegmentorWithTTA", "SummedProbabilities"]


class SemanticSegmentorWithTTA(WithTTA):
    """A semantic model whose class probabilities are averaged over the augmented pictures.

    Its ``model`` gives ``{"sem_seg": (K, H, W) logits}`` for each input; the ``sem_seg`` it returns are logarithms of
    the averaged probabilities.
    """

    def _inference_one_image(self, entry: dict[str, Any]) -> dict[str, Any]:
        augmented = self.tta_mapper(entry)
        total = SummedProbabilities()
        for chunk in chunks(augmented, self.batch_size):
            for a, output in zip(chunk, self.model.inference(chunk), strict=True):
                total.add(output["sem_seg"], flipped=a["transforms"].flip)
        return {"sem_seg": total.log_mean()}


class SummedProbabilities:
    """Class probabilities of one picture, as many times as it was segmented."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, logits: Tensor, *, flipped: bool) -> None:
        """Take ``(K, H, W)`` logits in the output frame, mirrored left to right if ``flipped``."""
        probabilities = (logits.flip(2) if flipped else logits).softmax(dim=0)
        self.total = probabilities if self.total is None else self.total + probabilities
        self.count += 1

    def log_mean(self) -> Tensor:
        """``(K, H, W)`` logarithms of the mean."""
        assert self.total is not None  # the mapper gives at least one picture
        return (self.total / self.count).clamp(min=1e-12).log()
