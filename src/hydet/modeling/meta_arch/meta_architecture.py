"""Base class of meta-architectures: pixel statistics, batching and the interface of a whole model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hydet.modeling.computed_buffers import ComputedBuffers
from hydet.modeling.padded import PaddedResults
from hydet.modeling.protocols import BackboneProtocol, Task
from hydet.modeling.selection.suppression import ImageSizes
from hydet.structures import ImageList, Losses, ModelInput, ModelOutput

from .model_inputs import check_image, check_image_type

__all__ = ["MetaArchitecture"]


class MetaArchitecture(ComputedBuffers):
    """Base class of whole models: computes losses or results from images. Implements ``hydet.modeling.Detector``.

    Subclasses define ``compute_losses``, ``inference`` and ``losses_and_inference``; ``forward`` calls the first in
    training mode and the second in evaluation mode. All three work in any mode. The mode changes only layers such as
    batch normalization, and the number of proposals that an R-CNN keeps.

    Args:
        backbone: its ``size_divisibility`` and ``padding_constraints`` decide the padding of a batch.
        pixel_mean: mean per channel, in the scale (0 to 255) and channel order of the input.
        pixel_std: standard deviation per channel, same scale and order as ``pixel_mean``. It is 1 for weights whose
            first convolution has absorbed the deviation.
        input_format: channel order that the weights expect, ``"RGB"`` or ``"BGR"``. ``hydet.data.InputMapper`` reads
            it to prepare images; the model itself never reorders channels.
        vis_period: log an image every ``vis_period`` training steps; 0 disables.
            ``hydet.engine.callbacks.TrainingImages`` draws it.

    Raises:
        ValueError: if pixel statistics do not fit together, ``vis_period`` is negative, or it is positive without
            ``input_format``.
    """

    backbone: BackboneProtocol
    pixel_mean: Tensor
    pixel_std: Tensor
    input_format: str | None
    _compiled_core: Callable[[Tensor, Tensor], PaddedResults] | None = None

    def __init__(
        self,
        *,
        backbone: BackboneProtocol,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(
                f"pixel_mean has {len(pixel_mean)} channels, pixel_std {len(pixel_std)}: they must agree"
            )
        if any(std <= 0 for std in pixel_std):
            raise ValueError(f"pixel_std must be positive, got {tuple(pixel_std)}")
        if vis_period < 0:
            raise ValueError(f"vis_period counts steps and cannot be negative, got {vis_period}")
        if vis_period > 0 and input_format is None:
            raise ValueError("vis_period needs input_format, which states the channel that is red")
        self.backbone = backbone
        self.input_format = input_format
        self.vis_period = vis_period
        self._pixel_statistics = {"pixel_mean": tuple(pixel_mean), "pixel_std": tuple(pixel_std)}
        self.register_computed_buffers()

    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return ``pixel_mean`` and ``pixel_std``, ``(C, 1, 1)`` each."""
        return {
            name: torch.tensor(values).float().view(-1, 1, 1)
            for name, values in self._pixel_statistics.items()
        }

    @property
    def device(self) -> torch.device:
        """Device of the model; inputs are moved to it."""
        return self.pixel_mean.device

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the model, most important first. They decide which labels and metrics fit the model."""
        return ("box",)

    @property
    def needs_proposals(self) -> bool:
        """True if each input must carry ``proposals``."""
        return False

    def forward(self, batched_inputs: Sequence[ModelInput]) -> Losses | list[ModelOutput]:
        """Compute losses in training mode, and results in evaluation mode.

        Args:
            batched_inputs: one dict per image with ``image`` (C, H, W) and, as the architecture needs them,
                ``instances``, ``sem_seg`` and ``proposals``; ``height`` and ``width`` of the results are optional.

        Returns:
            Scalar losses by name, or one dict of results per image.
        """
        return self.compute_losses(batched_inputs) if self.training else self.inference(batched_inputs)

    @abstractmethod
    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute losses against the ground truth in ``batched_inputs``, in any mode."""

    @abstractmethod
    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Compute one result per image, in any mode, without reading the ground truth."""

    @abstractmethod
    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results from one pass through the backbone, in any mode."""

    def inference_padded(self, images: Tensor, image_sizes: ImageSizes) -> PaddedResults:
        """Compute results as tensors, padded to a common number per image.

        This is the tensor core of inference. It does not wait for the device, and no shape depends on the data, so it
        compiles to one graph (``fullgraph=True``), exports, and runs in CUDA graphs.

        Args:
            images: ``(N, C, H, W)`` normalized images, padded as ``preprocess_image`` does.
            image_sizes: N pairs (height, width) before padding, or an ``(N, 2)`` tensor of them. A compiled program
                should take the tensor, which serves all sizes.

        Returns:
            Results in the frame of the network input.

        Raises:
            TypeError: if a part of the model has no tensor core.
        """
        raise TypeError(f"{type(self).__name__} has no tensor core: it does not define inference_padded")

    def compile_core(self, *, cuda_graph: bool = False) -> None:
        """Compile ``inference_padded`` as one graph at its first use, and use it for ``inference``.

        Each padded size compiles once; image sizes within a padded size do not matter.

        Args:
            cuda_graph: on a GPU, also record the kernels as a CUDA graph, which removes the cost of their launches. The
                tensors of a result are overwritten by the next call.
        """
        # Not a module attribute: pickles and state dicts of the model stay as they are.
        self.__dict__["_compiled_core"] = torch.compile(
            self.inference_padded,
            fullgraph=True,
            dynamic=False,
            mode="reduce-overhead" if cuda_graph else None,
        )

    @property
    def is_compiled(self) -> bool:
        """True after ``compile_core``."""
        return self._compiled_core is not None

    def run_core(self, images: ImageList) -> PaddedResults:
        """Run the tensor core on a batch; compiled after ``compile_core``."""
        core = self._compiled_core or self.inference_padded
        return core(images.tensor, torch.tensor(images.image_sizes, device=images.device))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_compiled_core"}

    def preprocess_image(self, batched_inputs: Sequence[ModelInput]) -> ImageList:
        """Normalize images, pad them with zeros at the right and bottom, and batch them.

        Raises:
            ValueError: if an image has another number of channels than ``pixel_mean``, or contains NaN or infinity.
                On a GPU, NaN and infinity stay unnoticed, since the check would wait for the device.
        """
        images = [self._normalize(entry) for entry in batched_inputs]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _normalize(self, entry: ModelInput) -> Tensor:
        check_image_type(entry, self.pixel_mean.dtype)
        check_image(entry, self.pixel_mean.shape[0])
        return (entry["image"].to(self.device) - self.pixel_mean) / self.pixel_std
