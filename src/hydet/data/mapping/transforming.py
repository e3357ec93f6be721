"""Applying transforms to a sample, so that all of its parts move together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from hydet.data.datasets.record import Proposals
from hydet.data.mapping.sample import Sample

__all__ = ["Transform", "TransformInputs", "apply_transforms", "check_point_transforms"]

TransformInputs = dict[str, Tensor]  # tv_tensors by name: image, boxes, points, ...
Transform = Callable[[TransformInputs], TransformInputs]

_FRAME_CORNERS = ((0, 0), (1, 0), (0, 1))  # (x, y) in units of width and height


class _PointGroups(NamedTuple):
    """All points of a sample, which transforms receive as one tensor."""

    frame: Tensor  # (3, 2) float64 corners of the image, which show whether it was mirrored
    keypoints: Tensor  # (N * K, 2)
    vertices: Tensor  # (V, 2) of the polygons of all objects

    def joined(self) -> Tensor:
        return torch.cat(self)

    def split(self, points: Tensor) -> _PointGroups:
        """Split points that were joined from groups of the same lengths."""
        return _PointGroups(*points.split([len(group) for group in self]))

    def is_mirrored(self) -> bool:
        """Return True if the corners of the frame are in counterclockwise order, so the image was mirrored."""
        origin, right, bottom = self.frame
        (a, b), (c, d) = (right - origin).tolist(), (bottom - origin).tolist()
        return float(a * d - b * c) < 0


def check_point_transforms(transforms: Sequence[object]) -> None:
    """Check that no transform is a flip of torchvision, which mirrors points one pixel away from the boxes.

    Args:
        transforms: transforms of samples with keypoints or polygons. Those inside containers are checked as well.

    Raises:
        ValueError: if there is such a flip.
    """
    for transform in transforms:
        if isinstance(transform, v2.RandomHorizontalFlip | v2.RandomVerticalFlip):
            name = type(transform).__name__
            raise ValueError(
                f"InputMapper: torchvision's {name} mirrors points one pixel away from boxes and masks; "
                f"use hydet.data.{name}"
            )
        # torchvision has no common base class of its containers: Compose, RandomApply, RandomChoice, RandomOrder.
        check_point_transforms(getattr(transform, "transforms", ()))


def apply_transforms(
    sample: Sample, transforms: Sequence[Transform], seed: int | None
) -> tuple[Sample, bool]:
    """Apply transforms to all parts of a sample at once.

    Args:
        sample: not modified.
        transforms: applied in order.
        seed: seed of the random numbers that the transforms draw; the state of torch's global generator is restored
            afterwards. None draws from the global generator.

    Returns:
        The sample in its new frame, and True if the image was mirrored.

    Raises:
        ValueError: if a transform adds or drops boxes or proposals, or does not return a part of the sample.
    """
    if not transforms:
        return sample, False
    points = _points_of(sample)
    outputs = _run_seeded(transforms, _to_inputs(sample, points), seed)
    plain = {name: output.as_subclass(Tensor) for name, output in outputs.items()}
    if "points" in plain:
        points = points.split(plain["points"])
    return _from_outputs(plain, points, sample), points.is_mirrored()


def _points_of(sample: Sample) -> _PointGroups:
    height, width = sample.size
    frame = torch.tensor(_FRAME_CORNERS, dtype=torch.float64) * torch.tensor([width, height])
    none = torch.zeros((0, 2), dtype=torch.float64)
    return _PointGroups(
        frame,
        none if sample.keypoints is None else sample.keypoints[..., :2].reshape(-1, 2).double(),
        none if sample.regions is None else torch.from_numpy(sample.regions.vertices()),
    )


def _to_inputs(sample: Sample, points: _PointGroups) -> TransformInputs:
    size = sample.size
    inputs: TransformInputs = {
        "image": tv_tensors.Image(sample.image),
        "boxes": _unclamped_boxes(sample.boxes, "XYXY", size),
    }
    if sample.regions is not None and sample.regions.bitmaps is not None:
        inputs["masks"] = tv_tensors.Mask(sample.regions.bitmaps)
    if sample.rotated_boxes is not None:
        inputs["rotated_boxes"] = _unclamped_boxes(sample.rotated_boxes, "CXCYWHR", size)
    if sample.sem_seg is not None:
        inputs["sem_seg"] = tv_tensors.Mask(sample.sem_seg)
    if sample.proposals is not None:
        inputs["proposals"] = _unclamped_boxes(sample.proposals.boxes, "XYXY", size)
    inputs["points"] = tv_tensors.KeyPoints(points.joined(), canvas_size=size)
    return inputs


def _unclamped_boxes(boxes: Tensor, box_format: str, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    """Wrap boxes so that no transform clamps them: afterwards, boxes that a crop has cut must be recognizable."""
    return tv_tensors.BoundingBoxes(boxes, format=box_format, canvas_size=size, clamping_mode=None)


def _run_seeded(
    transforms: Sequence[Transform], inputs: TransformInputs, seed: int | None
) -> TransformInputs:
    if seed is None:
        return _run(transforms, inputs)
    # Only the CPU's generator: seeding all devices would disturb a model that runs on one of them.
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        return _run(transforms, inputs)
    finally:
        torch.set_rng_state(state)


def _run(transforms: Sequence[Transform], inputs: TransformInputs) -> TransformInputs:
    counts = {name: len(inputs[name]) for name in ("boxes", "proposals") if name in inputs}
    names = set(inputs)
    # Without keypoints and polygons, the points only show whether the image was mirrored, which nothing depends on.
    if len(inputs["points"]) == len(_FRAME_CORNERS):
        names.remove("points")
    for transform in transforms:
        inputs = transform(inputs)
        if missing := sorted(names - inputs.keys()):
            raise ValueError(f"{type(transform).__name__} does not return {', '.join(missing)}")
        if any(len(inputs[name]) != count for name, count in counts.items()):
            raise ValueError(
                f"{type(transform).__name__} adds or drops objects or proposals; "
                "InputMapper drops empty objects itself, together with their masks and keypoints"
            )
    return inputs


def _from_outputs(outputs: TransformInputs, points: _PointGroups, sample: Sample) -> Sample:
    regions, keypoints, proposals = sample.regions, sample.keypoints, sample.proposals
    if regions is not None:
        regions = regions.moved(points.vertices.numpy(), outputs.get("masks"))
    if keypoints is not None:
        moved = points.keypoints.reshape(*keypoints.shape[:2], 2).to(keypoints.dtype)
        keypoints = torch.cat([moved, keypoints[..., 2:]], dim=2)
    if proposals is not None:
        proposals = Proposals(outputs["proposals"], proposals.objectness_logits)
    return dataclasses.replace(
        sample,
        image=outputs["image"],
        boxes=outputs["boxes"],
        regions=regions,
        keypoints=keypoints,
        rotated_boxes=outputs.get("rotated_boxes"),
        sem_seg=outputs.get("sem_seg"),
        proposals=proposals,
    )
