"""Test-time augmentation of semantic segmentation."""

from __future__ import annotations

from torch import Tensor

from hydet.structures import ModelInput, ModelOutput, SemanticScores

from .with_tta import WithTTA, chunks

__all__ = ["ProbabilityAverage", "SemanticSegmentorWithTTA"]


class SemanticSegmentorWithTTA(WithTTA):
    """Averages the class probabilities of a semantic segmentation model over the augmented images.

    ``model`` predicts ``sem_seg``, ``(K, H, W)`` logits. ``sem_seg`` of the merged result holds the logarithms of the
    averaged probabilities, so that its softmax and argmax mean the same as those of the logits.
    """

    def _inference_one_image(self, entry: ModelInput) -> ModelOutput:
        average = ProbabilityAverage()
        for chunk in chunks(self.tta_mapper(entry), self.batch_size):
            for augmented, output in zip(chunk, self.model.inference(chunk), strict=True):
                scores = output["sem_seg"]
                resized = scores.resize() if isinstance(scores, SemanticScores) else scores
                average.add(resized, flipped=augmented["transforms"].flip)
        return {"sem_seg": average.log_mean()}


class ProbabilityAverage:
    """Running mean of the class probabilities of one image."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, logits: Tensor, *, flipped: bool) -> None:
        """Add one prediction.

        Args:
            logits: ``(K, H, W)``, resized to the output frame.
            flipped: True if ``logits`` belong to a flipped image; they are flipped back.
        """
        probabilities = (logits.flip(2) if flipped else logits).softmax(dim=0)
        self.total = probabilities if self.total is None else self.total + probabilities
        self.count += 1

    def log_mean(self) -> Tensor:
        """Return the ``(K, H, W)`` logarithms of the mean probabilities."""
        assert self.total is not None  # the mapper returns at least one image
        return (self.total / self.count).clamp(min=1e-12).log()  # finite where a probability underflows to 0
