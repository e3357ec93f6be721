"""From a record of a dataset to the input of a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from hydet.data.annotations.polygons import clip_polygon, mask_to_polygons, rasterized
from hydet.data.datasets.record import Record, Segment, segment_to_mask
from hydet.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes

__all__ = ["InputMapper"]

MaskFormat = Literal["bitmask", "polygon"]
Transform = Callable[[dict[str, Any]], dict[str, Any]]


class InputMapper:
    """Augments a record and packs what a model needs of it.

    Objects follow the image through every transform; then boxes are clipped to the image, boxes that a crop has cut
    are drawn anew around what is left of the mask, and objects of which nothing is left are dropped. Rotated boxes are
    clipped only where they are nearly upright (``RotatedBoxes.clip``), and dropped once they lie wholly outside. Crowd
    regions are no objects to train on and are left out. If the transforms mirrored the image, keypoints such as left
    and right eye change places.

    Args:
        transforms: applied one after the other; each takes and gives a dict of ``tv_tensors``, as those of
            :mod:`hydet.data` and of ``torchvision.transforms.v2`` do. None for none.
        training: whether the inputs are for training. Evaluation keeps the order and number of images whatever is
            wrong with them; see :func:`hydet.data.build_train_loader`.
        mask_format: ``"bitmask"``, ``"polygon"``, or None for no masks.
        keypoints: also give keypoints.
        rotated: give ``RotatedBoxes`` instead of upright ones.
        sem_seg: also give semantic labels; in evaluation also those of the original image, with its panoptic ones.
        channel_order: of the image given to the model: its ``input_format``.
        max_proposals: also give so many of the record's proposals, the best ones; published are 2000 in training and
            1000 in evaluation. None for none.
        min_box_size: objects and proposals with a narrower or lower box, in pixels, are dropped.

    Raises:
        ValueError: for unknown formats, for ``max_proposals`` below 1, and for torchvision's own horizontal flip where
            there are points: it mirrors them one pixel away from the boxes.
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
            raise ValueError(f'InputMapper: mask_format is "bitmask", "polygon" or None, got {mask_format!r}')
        if channel_order not in ("RGB", "BGR"):
            raise ValueError(f'InputMapper: channel_order is "RGB" or "BGR", got {channel_order!r}')
        if max_proposals is not None and max_proposals < 1:
            raise ValueError(f"InputMapper: max_proposals must be at least 1, or None, got {max_proposals}")
        if transforms is None:
            transforms = ()
        self.transforms: tuple[Transform, ...] = (transforms,) if callable(transforms) else tuple(transforms)
        if keypoints or mask_format is not None:
            for transform in self.transforms:
                _refuse_shifted_flip(transform)
        self.training = training
        self.mask_format = mask_format
        self.keypoints = keypoints
        self.rotated = rotated
        self.sem_seg = sem_seg
        self.channel_order = channel_order
        self.max_proposals = max_proposals
        self.min_box_size = min_box_size

    def __call__(self, record: Record, seed: int | None = None) -> dict[str, Any]:
        """Make one model input.

        Args:
            record: left as it is.
            seed: of the random numbers of the transforms; torch's own stream goes on as if nothing was drawn. None
                draws from that stream.

        Returns:
            ``image`` (3, H, W) uint8, ``instances`` with ``gt_boxes``, ``gt_classes`` and, as asked for, ``gt_masks``
            and ``gt_keypoints``, ``sem_seg`` (H, W) int64, ``proposals`` with ``proposal_boxes`` and
            ``objectness_logits``, best first, all in the frame of the transformed image; ``height`` and ``width`` of
            the original, ``file_name`` and ``image_id``. In evaluation with ``sem_seg`` also
            ``ground_truth``, for evaluators: the record's own ``sem_seg`` (H, W) and, where it has them,
            ``panoptic_seg`` and ``segments_info``, in the frame of the original image; not to be changed in place.

        Raises:
            ValueError: if the record lacks what was asked for, or a transform adds or drops objects.
        """
        rows = (~record.iscrowd).nonzero().flatten()
        sample, layout = self._sample(record, rows)
        sample = self._transformed(sample, seed)
        image = sample["image"].as_subclass(Tensor)
        if self.channel_order == "BGR":
            image = image.flip(0)
        elif image.untyped_storage().data_ptr() == record.image.untyped_storage().data_ptr():
            image = image.clone()
        result: dict[str, Any] = {
            "image": image.contiguous(),
            "instances": self._instances(record, sample, layout),
            "height": record.height,
            "width": record.width,
            "file_name": record.file_name,
            "image_id": record.image_id,
        }
        if self.sem_seg:
            result["sem_seg"] = sample["sem_seg"].as_subclass(Tensor).long()
            if not self.training:
                result["ground_truth"] = _original_labels(record)
        if self.max_proposals is not None:
            result["proposals"] = self._proposals(record, sample, self.max_proposals)
        return result

    def _sample(self, record: Record, rows: Tensor) -> tuple[dict[str, Any], _Layout]:
        """What travels through the transforms, and how to find one's way in it afterwards."""
        size = (int(record.image.shape[1]), int(record.image.shape[2]))
        sample: dict[str, Any] = {
            "image": tv_tensors.Image(record.image),
            "boxes": _travelling(record.boxes[rows], "XYXY", size),
        }
        layout = _Layout(rows, [], [])
        # All points travel together: three that show a mirror, keypoints, the corners of polygons.
        points = [np.array([[0.0, 0.0], [size[1], 0.0], [0.0, size[0]]])]
        if self.keypoints:
            if record.keypoints is None:
                raise ValueError(f"{record.file_name}: keypoints are asked for, but the dataset has none")
            layout.keypoints = record.keypoints[rows]
            points.append(layout.keypoints[..., :2].reshape(-1, 2).double().numpy())
        if self.mask_format is not None:
            bitmaps = self._regions(record, rows.tolist(), layout)
            if bitmaps is not None:
                sample["masks"] = tv_tensors.Mask(bitmaps)
            points.extend(np.asarray(p, dtype=np.float64).reshape(-1, 2) for o in layout.polygons for p in o)
        if self.rotated:
            if record.rotated_boxes is None:
                raise ValueError(f"{record.file_name}: rotated boxes are asked for, but the dataset has none")
            sample["rotated_boxes"] = _travelling(record.rotated_boxes[rows], "CXCYWHR", size)
        if self.sem_seg:
            if record.sem_seg is None:
                raise ValueError(f"{record.file_name}: sem_seg is asked for, but the dataset has none")
            sample["sem_seg"] = tv_tensors.Mask(record.sem_seg)
        if self.max_proposals is not None:
            if record.proposals is None:
                raise ValueError(
                    f"{record.file_name}: proposals are asked for, but the dataset has none; see WithProposals"
                )
            sample["proposals"] = _travelling(record.proposals.boxes, "XYXY", size)
        if self.transforms:
            sample["points"] = tv_tensors.KeyPoints(
                torch.from_numpy(np.concatenate(points)), canvas_size=size
            )
        return sample, layout

    def _regions(self, record: Record, rows: list[int], layout: _Layout) -> Tensor | None:
        """Bitmaps of the objects that have no polygons to travel; fills the layout's polygons."""
        if self.mask_format == "bitmask" and record.masks is not None:
            layout.bitmap_rows = list(range(len(rows)))
            layout.polygons = [[] for _ in rows]
            return record.masks[layout.rows].view(torch.uint8)
        if record.segments is None:
            raise ValueError(f"{record.file_name}: masks are asked for, but the dataset has none")
        segments: list[Segment] = [record.segments[i] for i in rows]
        if self.mask_format == "polygon":
            height, width = record.image.shape[1:]
            layout.polygons = [
                mask_to_polygons(segment_to_mask(s, height, width))
                if isinstance(s, Mapping)
                else list(s or ())
                for s in segments
            ]
            return None
        layout.polygons = [[] if isinstance(s, Mapping) else list(s or ()) for s in segments]
        layout.bitmap_rows = [i for i, s in enumerate(segments) if isinstance(s, Mapping)]
        if not layout.bitmap_rows:
            return None
        height, width = record.image.shape[1:]
        codes = [segment_to_mask(segments[i], height, width) for i in layout.bitmap_rows]
        return torch.from_numpy(np.stack(codes).view(np.uint8))

    def _transformed(self, sample: dict[str, Any], seed: int | None) -> dict[str, Any]:
        if not self.transforms:
            return sample
        if seed is None:
            return self._applied(sample)
        # Only the CPU's stream: seeding all devices would disturb a model on one of them.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return self._applied(sample)
        finally:
            torch.set_rng_state(state)

    def _applied(self, sample: dict[str, Any]) -> dict[str, Any]:
        counts = {name: sample[name].shape[0] for name in ("boxes", "proposals") if name in sample}
        for transform in self.transforms:
            sample = transform(sample)
            if any(sample[name].shape[0] != count for name, count in counts.items()):
                raise ValueError(
                    f"{type(transform).__name__} drops objects or proposals; "
                    "leave that to InputMapper, which drops what belongs to them too"
                )
        return sample

    def _instances(self, record: Record, sample: dict[str, Any], layout: _Layout) -> Instances:
        height, width = (int(side) for side in sample["image"].shape[-2:])
        boxes = sample["boxes"].as_subclass(Tensor)
        gt_boxes = Boxes(boxes)
        gt_boxes.clip((height, width))
        clipped = gt_boxes.tensor
        points = sample["points"].as_subclass(Tensor) if "points" in sample else None
        keep = gt_boxes.nonempty(self.min_box_size)
        masks: BitMasks | PolygonMasks | None = None
        if self.mask_format is not None:
            masks = self._masks(sample, layout, points, height, width)
            keep &= masks.nonempty()
            cut = ((boxes != clipped).any(dim=1) & keep).nonzero().flatten()
            if cut.numel():
                clipped[cut] = masks[cut].get_bounding_boxes().tensor
                keep &= gt_boxes.nonempty(self.min_box_size)
        fields: dict[str, Any] = {"gt_boxes": gt_boxes}
        if self.rotated:
            rotated = RotatedBoxes(sample["rotated_boxes"].as_subclass(Tensor))
            keep &= _reach_into(rotated.tensor, height, width)
            rotated.clip((height, width))
            keep &= rotated.nonempty(self.min_box_size)
            fields["gt_boxes"] = rotated
        fields["gt_classes"] = record.classes[layout.rows]
        if masks is not None:
            fields["gt_masks"] = masks
        if layout.keypoints is not None:
            fields["gt_keypoints"] = Keypoints(
                self._keypoints(record, layout.keypoints, points, height, width)
            )
        instances = Instances((height, width), **fields)
        return instances if bool(keep.all()) else instances[keep]

    def _proposals(self, record: Record, sample: dict[str, Any], count: int) -> Instances:
        height, width = int(sample["image"].shape[-2]), int(sample["image"].shape[-1])
        boxes = Boxes(sample["proposals"].as_subclass(Tensor))
        boxes.clip((height, width))
        keep = boxes.nonempty(self.min_box_size).nonzero().flatten()
        assert record.proposals is not None
        logits = record.proposals.objectness_logits
        best = keep[logits[keep].argsort(descending=True, stable=True)[:count]]
        return Instances((height, width), proposal_boxes=boxes[best], objectness_logits=logits[best])

    def _masks(
        self, sample: dict[str, Any], layout: _Layout, points: Tensor | None, height: int, width: int
    ) -> BitMasks | PolygonMasks:
        objects = layout.polygons
        if points is not None and any(objects):
            corners = points.numpy()[
                3 + (0 if layout.keypoints is None else layout.keypoints[..., 0].numel()) :
            ]
            cuts = np.cumsum([len(p) // 2 for p in itertools.chain(*objects)])[:-1]
            moved = iter(np.split(corners, cuts))
            objects = [[np.ascontiguousarray(next(moved)).reshape(-1) for _ in one] for one in objects]
        if self.mask_format == "polygon":
            clipped = [[clip_polygon(p, height, width) for p in one] for one in objects]
            return PolygonMasks([[p for p in one if len(p)] for one in clipped])
        if "masks" in sample and len(layout.bitmap_rows) == len(objects):
            return BitMasks(sample["masks"].as_subclass(Tensor))
        masks = BitMasks(torch.from_numpy(rasterized(objects, height, width)))
        if "masks" in sample:
            masks.tensor[layout.bitmap_rows] = sample["masks"].as_subclass(Tensor).bool()
        return masks

    def _keypoints(
        self, record: Record, original: Tensor, points: Tensor | None, height: int, width: int
    ) -> Tensor:
        keypoints = original.clone()
        if points is not None:
            moved = points[3 : 3 + original[..., 0].numel()].reshape(*original.shape[:2], 2)
            keypoints[..., :2] = moved.to(keypoints.dtype)
            if _mirrored(points[:3]):
                if record.metadata is None:
                    raise ValueError(
                        f"{record.file_name}: a mirrored image needs the names of keypoints in metadata"
                    )
                keypoints = keypoints[:, list(record.metadata.keypoint_flip_indices)]
        x, y, v = keypoints.unbind(dim=2)
        inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (v > 0)
        return torch.where(inside[..., None], keypoints, 0.0)


class _Layout:
    """Which rows of a record travel, and which of their regions as what."""

    def __init__(self, rows: Tensor, polygons: list[list[Any]], bitmap_rows: list[int]) -> None:
        self.rows = rows
        self.polygons = polygons
        self.bitmap_rows = bitmap_rows
        self.keypoints: Tensor | None = None


def _original_labels(record: Record) -> dict[str, Any]:
    """What segmentation is measured against: labels that no transform has touched."""
    labels: dict[str, Any] = {"sem_seg": record.sem_seg}
    if record.panoptic_seg is not None:
        labels |= {"panoptic_seg": record.panoptic_seg, "segments_info": record.segments_info}
    return labels


def _travelling(boxes: Tensor, layout: str, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Boxes that no transform clamps to the image: the mapper has to see what a crop has cut."""
    return tv_tensors.BoundingBoxes(boxes, format=layout, canvas_size=size, clamping_mode=None)


def _reach_into(boxes: Tensor, height: int, width: int) -> Tensor:
    """``(n,)`` bool: which rotated boxes ``(n, 5)`` share some area with the image.

    Two rectangles are apart if they are so along an axis of either one.
    """
    sides, image = boxes[:, 2:4], boxes.new_tensor([[width, height]])
    radians = boxes[:, 4:].deg2rad()
    sin, cos = radians.sin(), radians.cos()
    along_axes = boxes[:, :2] - image / 2  # from centre to centre
    x, y = along_axes.split(1, dim=1)
    along_sides = torch.cat([x * cos - y * sin, x * sin + y * cos], dim=1)

    def reach(extent: Tensor) -> Tensor:  # half of what a rectangle covers of axes turned by the angle
        return (cos.abs() * extent + sin.abs() * extent.flip(1)) / 2

    meet = (along_axes.abs() < image / 2 + reach(sides)) & (along_sides.abs() < sides / 2 + reach(image))
    return meet.all(dim=1)


def _mirrored(corners: Tensor) -> bool:
    """Whether the images of (0, 0), (W, 0) and (0, H) turn the other way around."""
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    return float(a[0] * b[1] - a[1] * b[0]) < 0


def _refuse_shifted_flip(transform: Any) -> None:
    if isinstance(transform, v2.RandomHorizontalFlip | v2.RandomVerticalFlip):
        name = type(transform).__name__
        raise ValueError(
            f"InputMapper: torchvision's {name} mirrors points one pixel away from boxes and masks; "
            f"use hydet.data.{name}"
        )
    for inner in getattr(transform, "transforms", ()):  # of Compose and its kin
        _refuse_shifted_flip(inner)
