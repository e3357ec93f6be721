"""Watch parts of a model during a training step, and draw what they computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hydet.modeling import (
    BaseMaskRCNNHead,
    DenseDetector,
    GeneralizedRCNN,
    ProposalNetwork,
    SemanticSegmentor,
)
from hydet.modeling.meta_arch.semantic_segmentor import predict_logits
from hydet.structures import Instances
from hydet.visualization import draw_masks_beside_ground_truth

from ..protocols import Batch

__all__ = ["TrainingObserver", "make_observers"]


class NamedImage(NamedTuple):
    """An image for the log: ``(3, H, W)`` uint8 RGB."""

    name: str
    image: Tensor


class Call(NamedTuple):
    """Arguments and result of one call of a module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class HasVisPeriod(Protocol):
    """A model or head with an interval between images of its training."""

    @property
    def vis_period(self) -> int:
        """Number of training steps between two images; 0 disables."""
        ...


class TrainingObserver(ABC):
    """Record the last call of a module, and draw it.

    Args:
        module: module to watch; None if the batch alone holds what is drawn.
        owner: part whose ``vis_period`` applies.
    """

    def __init__(self, module: nn.Module | None, owner: HasVisPeriod) -> None:
        self._module = module
        self._owner = owner
        self._handle: RemovableHandle | None = None
        self._call: Call | None = None

    @property
    def period(self) -> int:
        """Number of optimizer steps between two images; 0 disables."""
        return self._owner.vis_period

    def attach(self) -> None:
        """Record calls from now on."""
        if self._module is not None and self._handle is None:
            self._handle = self._module.register_forward_hook(self._record, with_kwargs=True)

    def detach(self) -> None:
        """Record no further calls."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def draw(self, batch: Batch) -> NamedImage | None:
        """Draw the first image of the batch from the recorded call, and forget the call.

        Returns:
            None if the module was not called.
        """
        call, self._call = self._call, None
        if call is None and self._module is not None:
            return None
        with torch.no_grad():
            return self.draw_call(batch, call if call is not None else Call((), {}, None))

    @abstractmethod
    def draw_call(self, batch: Batch, call: Call) -> NamedImage | None:
        """Draw the first image of the batch from a recorded call, without gradients."""

    def _record(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self._call = Call(args, kwargs, result)


class ProposalObserver(TrainingObserver):
    """Draw the best proposals of a two-stage detector or proposal network.

    Args:
        model: its proposal generator is watched; without one, the proposals of the input are drawn.
    """

    def __init__(self, model: GeneralizedRCNN | ProposalNetwork) -> None:
        generator = model.proposal_generator
        super().__init__(generator if isinstance(generator, nn.Module) else None, model)
        self._model = model

    def draw_call(self, batch: Batch, call: Call) -> NamedImage:
        """Draw the proposals of the training step."""
        generated: tuple[Sequence[Instances], object] | None = call.result
        proposals = generated[0] if generated is not None else [entry["proposals"] for entry in batch]
        image = self._model.visualize_training(batch, proposals)
        return NamedImage("Left: ground truth. Right: proposals", image)


class DetectionObserver(TrainingObserver):
    """Draw the best detections of a dense detector.

    Args:
        model: its head is watched.
    """

    def __init__(self, model: DenseDetector) -> None:
        super().__init__(model.head, model)
        self._model = model

    def draw_call(self, batch: Batch, call: Call) -> NamedImage:
        """Run the model's inference on the predictions of the training step, and draw its first detections."""
        (features,) = call.args
        images = self._model.preprocess_image(batch)
        detections = self._model.forward_inference(images, features, call.result)
        image = self._model.visualize_training(batch, detections)
        return NamedImage("Left: ground truth. Right: detections", image)


class LabelObserver(TrainingObserver):
    """Draw the labels of a semantic segmentor.

    Args:
        model: its head is watched.
    """

    def __init__(self, model: SemanticSegmentor) -> None:
        head = model.sem_seg_head
        if not isinstance(head, nn.Module):
            raise TypeError(f"sem_seg_head must be an nn.Module, got {type(head).__name__}")
        super().__init__(head, model)
        self._model, self._head = model, head

    def draw_call(self, batch: Batch, call: Call) -> NamedImage:
        """Run the head again, since it returns only losses when it gets targets, and draw its labels."""
        with _without_statistics_update(self._head):
            logits = predict_logits(self._head, call.args[0])
        image = self._model.visualize_training(batch, logits)
        return NamedImage("Left: true labels. Right: predicted labels", image)


class MaskObserver(TrainingObserver):
    """Draw the masks of a mask head, for the regions of all images.

    Args:
        head: mask head to watch.
    """

    def __init__(self, head: BaseMaskRCNNHead) -> None:
        super().__init__(head, head)
        self._head = head

    def draw_call(self, batch: Batch, call: Call) -> NamedImage | None:
        """Run the layers of the head again, since it returns only losses, and draw the masks of the true classes.

        Returns:
            None if no region is foreground.
        """
        features, instances = call.args
        with _without_statistics_update(self._head):
            logits = self._head.layers(features)  # (R, classes or 1, M, M)
        foreground = [per_image for per_image in instances if len(per_image) > 0]
        if not foreground:
            return None
        mask_size = logits.shape[2]
        gt_masks = torch.cat(  # (R, M, M)
            [
                per_image.gt_masks.crop_and_resize(per_image.proposal_boxes.tensor, mask_size)
                for per_image in foreground
            ]
        )
        channels = torch.cat([per_image.gt_classes for per_image in foreground])
        if logits.shape[1] == 1:  # one mask for all classes
            channels = torch.zeros_like(channels)
        logits = logits[torch.arange(logits.shape[0], device=logits.device), channels].float()  # (R, M, M)
        return NamedImage(
            "Left: mask prediction. Right: ground truth", draw_masks_beside_ground_truth(logits, gt_masks)
        )


def make_observers(model: nn.Module) -> list[TrainingObserver]:
    """Return the observers of a meta-architecture and of its mask heads; a model of another kind has none."""
    observers: list[TrainingObserver] = []
    if isinstance(model, GeneralizedRCNN | ProposalNetwork):
        observers.append(ProposalObserver(model))
    elif isinstance(model, DenseDetector):
        observers.append(DetectionObserver(model))
    elif isinstance(model, SemanticSegmentor):
        observers.append(LabelObserver(model))
    observers += [MaskObserver(module) for module in model.modules() if isinstance(module, BaseMaskRCNNHead)]
    return observers


@contextmanager
def _without_statistics_update(module: nn.Module) -> Iterator[None]:
    """Let batch norms compute as in a training step, without a second update of their running statistics.

    The layers work on copies of their buffers. The backward pass of the step still needs the buffers themselves, and
    autograd does not allow a change of them, not even one that is undone.
    """
    originals = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    try:
        for owner, name, buffer in originals:
            setattr(owner, name, buffer.clone())
        yield
    finally:
        for owner, name, buffer in originals:
            setattr(owner, name, buffer)
