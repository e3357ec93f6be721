"""Detectors of mmdet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydet.modeling.meta_arch import MetaArchitecture
from hydet.modeling.meta_arch.generalized_rcnn import output_size
from hydet.modeling.meta_arch.meta_architecture import ModelInput, describe
from hydet.structures import ImageList, Instances

from .building import build_from_config, import_mmdet
from .heads import abilities_of
from .passes import shared_features, taking_the_path_of
from .results import (
    instances_from_mmdet,
    panoptic_from_mmdet,
    proposals_from_mmdet,
    scalar_losses,
    sem_seg_from_mmdet,
)
from .samples import add_ground_truth, make_sample, sem_seg_to_mmdet

__all__ = ["MMDetDetector"]

SIZE_BY_ITERATION = "BatchSyncRandomResize"  # asks mmengine's runner for the iteration; there is none here


class MMDetDetector(MetaArchitecture):
    """Any detector of mmdet 3, with the inputs, losses and results of hydet's own.

    Images are normalised, padded and reordered by the detector's ``data_preprocessor`` if it has one for images, with
    its own numbers; otherwise by the arguments here. Parameters keep mmdet's names, below ``detector``. There is no
    ``backbone`` attribute: it is inside.

    Args:
        detector: a config of mmdet, which is built and initialised; or a built detector, which is left as it is.
        size_divisibility: images are padded to multiples of this, unless the detector's preprocessor does it.
        pixel_mean: one number a channel, in the scale and channel order of the input.
        pixel_std: likewise.
        input_format: channel order of the images to be given, ``"BGR"`` or ``"RGB"``. By default that which the
            detector's preprocessor starts from: ``"BGR"``, as mmdet reads images, unless its config says
            ``rgb_to_bgr``.

    A panoptic detector learns from ``sem_seg`` as hydet's do, with 0 for all things and 255 for nothing; its
    ``num_stuff_classes`` counts the stuff without that 0.

    Raises:
        ImportError: if mmdet is not installed.
        TypeError: if ``detector`` is neither a module nor a config.
        ValueError: if mmdet does not know a ``type``, if the channel order contradicts that of the preprocessor, or
            if it resizes batches by iteration, which belongs to hydet's ``augment``.

    Source: Chen et al. 2019 (arXiv:1906.07155).
    """

    def __init__(
        self,
        *,
        detector: nn.Module | Mapping[str, Any],
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
            backbone=None,  # type: ignore[arg-type]
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=_channel_order(detector, input_format),
        )
        if isinstance(detector, nn.Module):
            import_mmdet("MMDetDetector")
            self.detector: Any = detector
        else:
            self.detector = build_from_config(detector, owner="MMDetDetector")
        self._abilities = abilities_of(self.detector)
        own = getattr(self.detector, "data_preprocessor", None)
        self._padding = None if _prepares_images(own) else _padding(size_divisibility)
        for augment in getattr(own, "batch_augments", None) or ():
            if type(augment).__name__ == SIZE_BY_ITERATION:
                raise ValueError(
                    f"MMDetDetector: {SIZE_BY_ITERATION} needs mmengine's runner; leave it out of "
                    "data_preprocessor.batch_augments and let hydet's augment resize the images"
                )

    @property
    def preprocessor(self) -> Any:
        """mmdet's module that makes batches of images: the detector's, or one that only pads."""
        return self.detector.data_preprocessor if self._padding is None else self._padding

    @property
    def tasks(self) -> tuple[str, ...]:
        """Of ``panoptic``, ``box``, ``mask`` and ``proposals``, what the detector's heads predict.

        mmdet's detectors of regions with a semantic branch give panoptic results alone.
        """
        return self._abilities.tasks

    def compute_losses(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """mmdet's losses under mmdet's names, without its metrics, in any mode.

        In training mode the preprocessor's batch augmentations run as well.

        Args:
            batched_inputs: with ``instances``; with their ``gt_masks`` if the detector predicts masks, and with
                ``sem_seg`` if it has a semantic branch.

        Raises:
            ValueError: if an input lacks what is needed, a box is degenerate or rotated, or a class is too high.
        """
        images, samples = self._prepared(batched_inputs, with_truth=True, augment=self.training)
        with shared_features(self.detector):
            return self._losses(images, samples)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, Any]]:
        """mmdet's results, in any mode, without gradients.

        Args:
            batched_inputs: ``height`` and ``width`` name the output resolution, by default that of the input.

        Returns:
            One mapping an image: ``instances`` with ``pred_boxes``, ``scores``, ``pred_classes`` and perhaps
            ``pred_masks``, ``(N, H, W)`` bool; ``proposals`` of an RPN alone; ``panoptic_seg``, a map and its segments
            (see ``combine_semantic_and_instance_outputs``; mmdet tells no scores); ``sem_seg``. Of those, what the
            detector gives.
        """
        images, samples = self._prepared(batched_inputs, with_truth=False)
        with shared_features(self.detector):
            return self._predicted(images, samples)

    def losses_and_inference(
        self, batched_inputs: Sequence[ModelInput]
    ) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Both, in any mode, from one pass through the backbone and the neck; the heads run twice."""
        images, samples = self._prepared(batched_inputs, with_truth=True)
        with shared_features(self.detector):
            losses = self._losses(images, samples)
            with torch.no_grad():
                return losses, self._predicted(images, [type(s)(metainfo=s.metainfo) for s in samples])

    def preprocess_image(self, batched_inputs: Sequence[ModelInput]) -> ImageList:
        """The batch that the detector sees."""
        images, samples = self._prepared(batched_inputs, with_truth=False)
        return ImageList(images, [sample.img_shape for sample in samples])

    def _prepared(
        self, batched_inputs: Sequence[ModelInput], *, with_truth: bool, augment: bool = False
    ) -> tuple[Tensor, list[Any]]:
        """``(B, C, H, W)`` images and a sample for each, on the model's device."""
        images, samples = [], []
        for entry in batched_inputs:
            image = entry["image"]
            images.append(self._checked(entry) if self._padding is None else self._normalized(entry))
            size = (int(image.shape[1]), int(image.shape[2]))
            sample = make_sample(entry, size, output_size(entry, size))
            if with_truth:
                self._add_ground_truth(sample, entry)
            samples.append(sample)
        # mmengine moves inputs to where the preprocessor was last told to be, and only hears of moves of the detector.
        preprocessor = self.preprocessor.to(self.device)
        data = {"inputs": images, "data_samples": samples}
        augmentations = getattr(preprocessor, "batch_augments", None)
        if augment or augmentations is None:
            data = preprocessor(data, with_truth)
        else:
            preprocessor.batch_augments = None
            try:
                data = preprocessor(data, with_truth)
            finally:
                preprocessor.batch_augments = augmentations
        return data["inputs"], data["data_samples"]

    def _checked(self, entry: ModelInput) -> Tensor:
        image = entry["image"]
        if image.ndim != 3 or image.shape[0] != self.pixel_mean.shape[0]:
            raise ValueError(
                f"{describe(entry)}: image has shape {tuple(image.shape)}, "
                f"expected ({self.pixel_mean.shape[0]}, H, W)"
            )
        return image

    def _add_ground_truth(self, sample: Any, entry: ModelInput) -> None:
        needs = self._abilities
        if "instances" in entry:
            instances = entry["instances"]
            if instances.gt_boxes.tensor.shape[1] != 4:
                raise ValueError(f"{describe(entry)}: mmdet's detectors take upright boxes, got rotated ones")
            if needs.needs_masks and not instances.has("gt_masks"):
                raise ValueError(f"{describe(entry)}: losses of this detector need gt_masks in 'instances'")
            # Masks are left out: they would travel to the device and back, as mmdet keeps them on the CPU.
            fields = {"gt_boxes": instances.gt_boxes, "gt_classes": instances.gt_classes}
            checked = {**entry, "instances": Instances(instances.image_size, **fields)}
        else:
            checked = entry
        self._ground_truth([checked], num_classes=needs.num_classes)
        sem_seg = None
        if needs.needs_sem_seg:
            sem_seg = self._ground_truth([entry], "sem_seg")[0].long()
            if needs.num_things is not None:
                sem_seg = sem_seg_to_mmdet(sem_seg, needs.num_things)
        add_ground_truth(sample, instances, sem_seg)

    def _losses(self, images: Tensor, samples: list[Any]) -> dict[str, Tensor]:
        with taking_the_path_of(self.detector, training=True):
            losses = scalar_losses(self.detector(images, samples, mode="loss"))
        if losses and torch.is_grad_enabled() and not any(len(s.gt_instances.bboxes) for s in samples):
            # Some heads of mmdet skip what there is nothing for, and DDP would wait for its gradients for ever.
            name = next(iter(losses))
            used = [p.sum().float() for p in self.detector.parameters() if p.requires_grad]
            losses[name] = losses[name] + 0.0 * torch.stack(used).sum() if used else losses[name]
        return losses

    def _predicted(self, images: Tensor, samples: list[Any]) -> list[dict[str, Any]]:
        with taking_the_path_of(self.detector, training=False):
            samples = self.detector(images, samples, mode="predict")
        gives = self._abilities
        results = []
        for sample in samples:
            result: dict[str, Any] = {}
            if "pred_instances" in sample:
                found, size = sample.pred_instances, sample.ori_shape
                if gives.tasks == ("proposals",):
                    result["proposals"] = proposals_from_mmdet(found, size)
                else:
                    result["instances"] = instances_from_mmdet(found, size, has_boxes=gives.has_boxes)
            if "pred_sem_seg" in sample:
                result["sem_seg"] = sem_seg_from_mmdet(sample.pred_sem_seg.sem_seg)
            if "pred_panoptic_seg" in sample:
                result["panoptic_seg"] = panoptic_from_mmdet(
                    sample.pred_panoptic_seg.sem_seg,
                    num_things=gives.num_things or 0,
                    num_stuff=gives.num_stuff,
                )
            results.append(result)
        return results


def _channel_order(detector: Any, wanted: str | None) -> str:
    """The order of the input, from the config of the preprocessor where there is one."""
    config = detector.get("data_preprocessor") if isinstance(detector, Mapping) else None
    config = config if isinstance(config, Mapping) else {}
    turned = "RGB" if config.get("rgb_to_bgr") else "BGR" if config.get("bgr_to_rgb") else None
    if turned and wanted not in (None, turned):
        raise ValueError(
            f"MMDetDetector: data_preprocessor turns {turned} around, so input_format must be {turned}, got {wanted}"
        )
    return wanted or turned or "BGR"


def _prepares_images(preprocessor: Any) -> bool:
    from mmengine.model import ImgDataPreprocessor

    return isinstance(preprocessor, ImgDataPreprocessor)


def _padding(size_divisibility: int) -> nn.Module:
    """A preprocessor that only pads images, masks and label maps."""
    from mmdet.models import DetDataPreprocessor

    return DetDataPreprocessor(pad_size_divisor=max(1, size_divisibility), pad_mask=True, pad_seg=True)
