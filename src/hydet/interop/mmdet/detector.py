"""Detectors of mmdet as meta-architectures of hydet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hydet.modeling.meta_arch import MetaArchitecture
from hydet.modeling.meta_arch.model_inputs import (
    check_image,
    describe_input,
    get_gt_instances,
    get_label_maps,
    output_size,
)
from hydet.modeling.protocols import Task
from hydet.structures import ImageList, Instances, Losses, ModelInput, ModelOutput

from .building import MMDetConfig, build_from_config, import_mmdet, take_unsaved_buffers
from .capabilities import inspect_detector
from .forward_context import cache_features, use_forward_mode
from .results import (
    instances_from_mmdet,
    panoptic_from_mmdet,
    proposals_from_mmdet,
    scalar_losses,
    sem_seg_from_mmdet,
)
from .samples import add_ground_truth, make_sample, sem_seg_to_mmdet

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

__all__ = ["MMDetDetector"]

# A batch augmentation that reads the iteration from mmengine's runner, which does not exist in hydet.
RESIZE_BY_ITERATION = "BatchSyncRandomResize"


class MMDetDetector(MetaArchitecture):
    """A detector of mmdet 3 with the inputs, losses and results of a hydet model.

    If the detector has a ``data_preprocessor`` for images, that one normalizes, pads and reorders them with its own
    settings. Otherwise the arguments of this class apply. Parameters keep mmdet's names, below ``detector``; the
    ``backbone`` attribute is None, since the backbone is part of ``detector``.

    A panoptic detector trains on ``sem_seg`` in hydet's numbering: 0 for all things, then stuff, 255 for unlabeled
    pixels. Its ``num_stuff_classes`` does not count label 0.

    Args:
        detector: an mmdet config, which is built and initialized; or a built detector, which is used unchanged.
        size_divisibility: pad images to multiples of this; ignored if the detector has a preprocessor for images.
        pixel_mean: per-channel mean, in the scale and channel order of the input.
        pixel_std: per-channel standard deviation, in the same scale and order as ``pixel_mean``.
        input_format: channel order of the input images, ``"BGR"`` or ``"RGB"``. By default the order that the
            preprocessor expects: ``"RGB"`` if its config sets ``rgb_to_bgr``, else ``"BGR"``, as mmdet reads images.

    Raises:
        ImportError: if mmdet is not installed.
        TypeError: if ``detector`` is neither a module nor a config.
        ValueError: if mmdet has no such ``type``, if ``input_format`` contradicts the preprocessor, or if the
            preprocessor resizes batches by iteration.

    Source: Chen et al. 2019 (arXiv:1906.07155).
    """

    _unsaved_buffers: Mapping[str, Tensor] = {}

    def __init__(
        self,
        *,
        detector: nn.Module | MMDetConfig,
        size_divisibility: int = 32,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
    ) -> None:
        if input_format not in ("RGB", "BGR", None):
            raise ValueError(f'MMDetDetector: input_format is "RGB" or "BGR", got {input_format!r}')
        if size_divisibility < 0:
            raise ValueError(f"MMDetDetector: size_divisibility cannot be negative, got {size_divisibility}")
        super().__init__(
            backbone=None,  # type: ignore[arg-type]  # the backbone is part of ``detector``
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=_channel_order(detector, input_format),
        )
        if isinstance(detector, nn.Module):
            import_mmdet("MMDetDetector")
            self.detector: Any = detector  # mmdet declares no interface of its detectors
        else:
            self.detector = build_from_config(detector, owner="MMDetDetector")
        self._unsaved_buffers = {
            f"detector.{name}": value for name, value in take_unsaved_buffers(self.detector).items()
        }
        self.track_computed_buffers(self.computed_buffers())
        self._capabilities = inspect_detector(self.detector)
        preprocessor = getattr(self.detector, "data_preprocessor", None)
        self._padding = None if _is_image_preprocessor(preprocessor) else _make_padding(size_divisibility)
        for augment in getattr(preprocessor, "batch_augments", None) or ():
            if type(augment).__name__ == RESIZE_BY_ITERATION:
                raise ValueError(
                    f"MMDetDetector: {RESIZE_BY_ITERATION} needs mmengine's runner; remove it from "
                    "data_preprocessor.batch_augments and resize images with hydet's augment options"
                )

    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return the pixel statistics of this module and of the preprocessor, and mmdet's other unsaved buffers."""
        return {**super().computed_buffers(), **self._unsaved_buffers}

    @property
    def preprocessor(self) -> Any:  # mmdet declares no interface of preprocessors
        """The mmdet module that batches images: the detector's preprocessor, or one that only pads."""
        return self.detector.data_preprocessor if self._padding is None else self._padding

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of the detector's heads: ``panoptic``, ``box``, ``mask`` or ``proposals``.

        mmdet's two-stage detectors with a semantic branch return panoptic results only.
        """
        return self._capabilities.tasks

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> Losses:
        """Compute mmdet's losses in any mode. In training mode, the preprocessor's batch augmentations run first.

        Args:
            batched_inputs: with ``instances``; with their ``gt_masks`` if the detector predicts masks, and with
                ``sem_seg`` if it has a semantic branch.

        Returns:
            Scalar losses by mmdet's names, without mmdet's metrics.

        Raises:
            ValueError: if an input lacks ground truth, a box is degenerate or rotated, or a class is out of range.
        """
        images, samples = self._prepare(batched_inputs, with_ground_truth=True, augment=self.training)
        with cache_features(self.detector):
            return self._losses(images, samples)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[ModelOutput]:
        """Compute mmdet's results in any mode, without gradients.

        Args:
            batched_inputs: ``height`` and ``width`` name the output resolution, by default that of the input.

        Returns:
            One dict per image, with the keys that belong to the tasks of the detector: ``instances`` with
            ``pred_boxes``, ``scores``, ``pred_classes`` and, for masks, ``pred_masks``, ``(N, H, W)`` bool;
            ``proposals`` of a detector that is only an RPN; ``panoptic_seg``, a map and its segments without scores;
            ``sem_seg``.
        """
        images, samples = self._prepare(batched_inputs, with_ground_truth=False)
        with cache_features(self.detector):
            return self._predict(images, samples)

    def losses_and_inference(self, batched_inputs: Sequence[ModelInput]) -> tuple[Losses, list[ModelOutput]]:
        """Compute losses and results in any mode, from one pass through backbone and neck; the heads run twice."""
        images, samples = self._prepare(batched_inputs, with_ground_truth=True)
        with cache_features(self.detector):
            losses = self._losses(images, samples)
            without_ground_truth = [type(sample)(metainfo=sample.metainfo) for sample in samples]
            with torch.no_grad():
                return losses, self._predict(images, without_ground_truth)

    def preprocess_image(self, batched_inputs: Sequence[ModelInput]) -> ImageList:
        """Return the batch of images as the preprocessor makes it."""
        images, samples = self._prepare(batched_inputs, with_ground_truth=False)
        return ImageList(images, [sample.img_shape for sample in samples])

    def _prepare(
        self, batched_inputs: Sequence[ModelInput], *, with_ground_truth: bool, augment: bool = False
    ) -> tuple[Tensor, list[DetDataSample]]:
        """Return ``(B, C, H, W)`` images and one ``DetDataSample`` per image, on the model's device."""
        images, samples = [], []
        for entry in batched_inputs:
            image = entry["image"]
            check_image(entry, self.pixel_mean.shape[0])
            images.append(image if self._padding is None else self._normalize(entry))
            size = (int(image.shape[1]), int(image.shape[2]))
            sample = make_sample(entry, size, output_size(entry, size))
            if with_ground_truth:
                self._add_ground_truth(sample, entry)
            samples.append(sample)
        # mmengine moves inputs to the device of the last ``preprocessor.to``. A move of this model does not call it.
        preprocessor = self.preprocessor.to(self.device)
        data = {"inputs": images, "data_samples": samples}
        augmentations = getattr(preprocessor, "batch_augments", None)
        if augment or augmentations is None:
            data = preprocessor(data, with_ground_truth)
        else:
            preprocessor.batch_augments = None
            try:
                data = preprocessor(data, with_ground_truth)
            finally:
                preprocessor.batch_augments = augmentations
        return data["inputs"], data["data_samples"]

    def _add_ground_truth(self, sample: DetDataSample, entry: ModelInput) -> None:
        """Check the ground truth of one input and add it to its sample."""
        needs = self._capabilities
        to_check: ModelInput = entry
        if "instances" in entry:
            instances = entry["instances"]
            if instances.gt_boxes.tensor.shape[1] != 4:
                raise ValueError(
                    f"{describe_input(entry)}: mmdet's detectors take upright boxes, got rotated boxes"
                )
            if needs.needs_masks and not instances.has("gt_masks"):
                raise ValueError(
                    f"{describe_input(entry)}: losses of this detector need gt_masks in 'instances'"
                )
            # Without masks, which the check would copy to the device for nothing: mmdet keeps them on the CPU.
            boxes_only = Instances(
                instances.image_size, gt_boxes=instances.gt_boxes, gt_classes=instances.gt_classes
            )
            to_check = {**entry, "instances": boxes_only}
        get_gt_instances([to_check], self.device, num_classes=needs.num_classes)
        sem_seg = None
        if needs.needs_sem_seg:
            sem_seg = get_label_maps([entry], self.device)[0].long()
            if needs.num_things is not None:
                sem_seg = sem_seg_to_mmdet(sem_seg, needs.num_things)
        add_ground_truth(sample, entry["instances"], sem_seg)

    def _losses(self, images: Tensor, samples: list[DetDataSample]) -> Losses:
        with use_forward_mode(self.detector, training=True):
            losses = scalar_losses(self.detector(images, samples, mode="loss"))
        if losses and torch.is_grad_enabled() and not any(len(s.gt_instances.bboxes) for s in samples):
            # Some heads of mmdet skip their layers for a batch without objects. DDP would wait for their gradients
            # forever, so a zero connects the losses to every parameter.
            name = next(iter(losses))
            sums = [p.sum().float() for p in self.detector.parameters() if p.requires_grad]
            losses[name] = losses[name] + 0.0 * torch.stack(sums).sum() if sums else losses[name]
        return losses

    def _predict(self, images: Tensor, samples: list[DetDataSample]) -> list[ModelOutput]:
        with use_forward_mode(self.detector, training=False):
            samples = self.detector(images, samples, mode="predict")
        capabilities = self._capabilities
        results = []
        for sample in samples:
            result: ModelOutput = {}
            if "pred_instances" in sample:
                predictions, size = sample.pred_instances, sample.ori_shape
                if capabilities.tasks == ("proposals",):
                    result["proposals"] = proposals_from_mmdet(predictions, size)
                else:
                    result["instances"] = instances_from_mmdet(
                        predictions, size, has_boxes=capabilities.has_boxes
                    )
            if "pred_sem_seg" in sample:
                result["sem_seg"] = sem_seg_from_mmdet(sample.pred_sem_seg.sem_seg)
            if "pred_panoptic_seg" in sample:
                result["panoptic_seg"] = panoptic_from_mmdet(
                    sample.pred_panoptic_seg.sem_seg,
                    num_things=capabilities.num_things or 0,
                    num_stuff=capabilities.num_stuff,
                )
            results.append(result)
        return results


def _channel_order(detector: nn.Module | MMDetConfig, input_format: str | None) -> str:
    """Return the channel order of the input, from the config of the preprocessor if there is one.

    Raises:
        ValueError: if ``input_format`` contradicts that config.
    """
    config = detector.get("data_preprocessor") if isinstance(detector, Mapping) else None
    config = config if isinstance(config, Mapping) else {}
    expected = "RGB" if config.get("rgb_to_bgr") else "BGR" if config.get("bgr_to_rgb") else None
    if expected and input_format not in (None, expected):
        raise ValueError(
            f"MMDetDetector: data_preprocessor reverses the channels of {expected} images, so input_format must be "
            f"{expected}, got {input_format}"
        )
    return input_format or expected or "BGR"


def _is_image_preprocessor(preprocessor: object) -> bool:
    from mmengine.model import ImgDataPreprocessor

    return isinstance(preprocessor, ImgDataPreprocessor)


def _make_padding(size_divisibility: int) -> nn.Module:
    """Make a preprocessor that only pads images, masks and label maps."""
    from mmdet.models import DetDataPreprocessor

    padding: nn.Module = DetDataPreprocessor(
        pad_size_divisor=max(1, size_divisibility), pad_mask=True, pad_seg=True
    )
    return padding
