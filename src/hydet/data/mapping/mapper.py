"""The input mapper: from a record of a dataset to the input of a model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from hydet.data.datasets.record import Record
from hydet.data.mapping.instances import build_instances, build_proposals
from hydet.data.mapping.regions import MaskFormat
from hydet.data.mapping.sample import Sample, select_sample
from hydet.data.mapping.transforming import Transform, apply_transforms, check_point_transforms
from hydet.data.transforms.flipping import RandomHorizontalFlip
from hydet.structures import ModelInput

__all__ = ["InputMapper"]


class InputMapper:
    """Turns a record of a dataset into a model input, with augmentation.

    A record passes through four steps: :func:`~hydet.data.mapping.sample.select_sample` takes the parts that the model
    needs, :func:`~hydet.data.mapping.transforming.apply_transforms` moves them together,
    :func:`~hydet.data.mapping.instances.build_instances` clips objects to the image and drops empty ones, and the mapper
    packs the result.

    Boxes that a crop has cut are replaced by the boxes around the rest of their masks. Rotated boxes are clipped only
    where they are nearly upright (``RotatedBoxes.clip``), and dropped if they lie outside the image. Crowd regions are
    dropped. If the transforms mirrored the image, paired keypoints such as left and right eye are swapped; if the pairs are
    not known (``Metadata.mirrors_keypoints``), the image is mirrored back.

    Args:
        transforms: one transform, or several that are applied in order. Each takes and returns a dict of ``tv_tensors``,
            like those of :mod:`hydet.data` and ``torchvision.transforms.v2``. None for none.
        training: False adds the original labels for evaluators; see ``sem_seg``.
        mask_format: ``"bitmask"``, ``"polygon"``, or None for no masks.
        keypoints: add ``gt_keypoints``.
        rotated: return ``RotatedBoxes`` instead of ``Boxes``.
        sem_seg: add semantic labels; in evaluation also those of the original image, with its panoptic labels.
        channel_order: channel order of the image in the model input; the model's ``input_format``.
        max_proposals: add at most this number of the record's best proposals; published models use 2000 in training and
            1000 in evaluation. None for no proposals.
        min_box_size: in pixels; objects and proposals are dropped unless their box is wider and higher than this.

    Raises:
        ValueError: if a format is unknown, ``max_proposals`` is below 1, or torchvision's own flip is among the transforms
            of keypoints or masks: it mirrors points one pixel away from the boxes.
    """

    def __init__(
        self,
        *,
        transforms: Transform | Sequence[Transform] | None = None,
        training: bool,
        mask_format: MaskFormat | None = "bitmask",
        keypoints: bool = False,
        rotated: bool = False,
        sem_seg: bool = False,
        channel_order: Literal["RGB", "BGR"] = "RGB",
        max_proposals: int | None = None,
        min_box_size: float = 1e-5,
    ) -> None:
        if mask_format not in ("bitmask", "polygon", None):
            raise ValueError(
                f'InputMapper: mask_format must be "bitmask", "polygon" or None, got {mask_format!r}'
            )
        if channel_order not in ("RGB", "BGR"):
            raise ValueError(f'InputMapper: channel_order must be "RGB" or "BGR", got {channel_order!r}')
        if max_proposals is not None and max_proposals < 1:
            raise ValueError(f"InputMapper: max_proposals must be at least 1 or None, got {max_proposals}")
        if transforms is None:
            transforms = ()
        self.transforms: tuple[Transform, ...] = (transforms,) if callable(transforms) else tuple(transforms)
        if keypoints or mask_format is not None:
            check_point_transforms(self.transforms)
        self.training = training
        self.mask_format = mask_format
        self.keypoints = keypoints
        self.rotated = rotated
        self.sem_seg = sem_seg
        self.channel_order = channel_order
        self.max_proposals = max_proposals
        self.min_box_size = min_box_size

    def without_transforms(self) -> InputMapper:
        """Return a mapper that leaves images in their original size, for tiles and test-time augmentation."""
        mapper = copy.copy(self)
        mapper.transforms = ()
        return mapper

    def __call__(self, record: Record, seed: int | None = None) -> ModelInput:
        """Turn a record into a model input.

        Args:
            record: not modified.
            seed: seed of the random numbers that the transforms draw; the state of torch's global generator is restored
                afterwards. None draws from the global generator.

        Returns:
            ``image`` (3, H, W) uint8; ``instances`` with ``gt_boxes``, ``gt_classes`` and, if selected, ``gt_masks`` and
            ``gt_keypoints``; if selected, ``sem_seg`` (H, W) int64, and ``proposals`` with ``proposal_boxes`` and
            ``objectness_logits``, best first. All of these are in the frame of the transformed image. ``height`` and
            ``width`` are those of the original image; ``file_name`` and ``image_id`` are those of the record.
            In evaluation with ``sem_seg``, ``ground_truth`` holds the record's own ``sem_seg`` and, if it has them,
            ``panoptic_seg`` and ``segments_info``, in the frame of the original image; do not change them in place.

        Raises:
            ValueError: if the record lacks a selected part, or a transform adds or drops objects.
        """
        sample = select_sample(
            record,
            mask_format=self.mask_format,
            keypoints=self.keypoints,
            rotated=self.rotated,
            sem_seg=self.sem_seg,
            proposals=self.max_proposals is not None,
        )
        sample, mirrored = apply_transforms(sample, self.transforms, seed)
        if mirrored and sample.keypoints is not None:
            sample = _correct_mirrored_keypoints(sample, record)
        model_input: ModelInput = {
            "image": self._pack_image(sample.image, record),
            "instances": build_instances(
                sample, mask_format=self.mask_format, min_box_size=self.min_box_size
            ),
            "height": record.height,
            "width": record.width,
            "file_name": record.file_name,
            "image_id": record.image_id,
        }
        if sample.sem_seg is not None:
            model_input["sem_seg"] = sample.sem_seg.long()
            if not self.training:
                model_input["ground_truth"] = _original_labels(record)
        if sample.proposals is not None and self.max_proposals is not None:
            model_input["proposals"] = build_proposals(
                sample.proposals,
                sample.size,
                max_proposals=self.max_proposals,
                min_box_size=self.min_box_size,
            )
        return model_input

    def _pack_image(self, image: Tensor, record: Record) -> Tensor:
        """Return the image in the channel order of the model, in memory that the record does not share."""
        if self.channel_order == "BGR":
            return image.flip(0).contiguous()  # flip copies
        if image.untyped_storage().data_ptr() == record.image.untyped_storage().data_ptr():
            image = image.clone()
        return image.contiguous()


def _correct_mirrored_keypoints(sample: Sample, record: Record) -> Sample:
    """Swap paired keypoints of a mirrored image: the left eye now looks like a right eye.

    If the pairs are not known, the image is mirrored back instead, with all that the transforms did besides.
    """
    if record.metadata is None:
        raise ValueError(f"{record.file_name}: a mirrored image needs the keypoint names in metadata")
    if not record.metadata.mirrors_keypoints:
        return apply_transforms(sample, [RandomHorizontalFlip(p=1.0)], seed=0)[0]
    assert sample.keypoints is not None
    swapped = sample.keypoints[:, list(record.metadata.keypoint_flip_indices)]
    return dataclasses.replace(sample, keypoints=swapped)


def _original_labels(record: Record) -> dict[str, object]:
    """Return the labels for semantic and panoptic evaluators, in the frame of the original image."""
    labels: dict[str, object] = {"sem_seg": record.sem_seg}
    if record.panoptic_seg is not None:
        labels |= {"panoptic_seg": record.panoptic_seg, "segments_info": record.segments_info}
    return labels
