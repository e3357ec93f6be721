"""Checks and access to the inputs of one batch: images, ground truth, label maps, proposals, output sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hydet.modeling.protocols import BackboneProtocol
from hydet.structures import ImageList, Instances, ModelInput

__all__: list[str] = []


def describe_input(entry: ModelInput) -> str:
    """Return a name of the input for error messages: its file, its id, or neither."""
    if entry.get("file_name") is not None:
        return f"file_name {entry['file_name']}"
    if entry.get("image_id") is not None:
        return f"image_id {entry['image_id']}"
    return "an input without file_name or image_id"


def output_size(entry: ModelInput, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the results: those that the input states, or those of the network's input."""
    return int(entry.get("height", image_size[0])), int(entry.get("width", image_size[1]))


def check_image_type(entry: ModelInput, dtype: torch.dtype) -> None:
    """Check that an image is a tensor of a dtype that the model accepts.

    Args:
        entry: the input.
        dtype: dtype of the model; float64 images need a float64 model.

    Raises:
        TypeError: if the image is an array, a PIL image, a path or another object, or float64.
    """
    image: object = entry["image"]
    if not isinstance(image, Tensor):
        raise TypeError(
            f"{describe_input(entry)}: image is a {type(image).__name__}; a model takes a (C, H, W) tensor, for example "
            "from hydet.data.read_image(path) or torch.from_numpy(array).permute(2, 0, 1)"
        )
    if image.dtype == torch.float64 and dtype != torch.float64:
        raise TypeError(
            f"{describe_input(entry)}: image is float64, the model {str(dtype).removeprefix('torch.')}; "
            "convert it with image.float()"
        )


def check_image(entry: ModelInput, num_channels: int) -> None:
    """Check the shape of an image and, on a CPU, that its values are finite.

    On a GPU, the values stay unchecked, since the check would wait for the device.

    Raises:
        ValueError: if the image has another number of channels, or contains NaN or infinity.
    """
    image = entry["image"]
    if image.ndim != 3 or image.shape[0] != num_channels:
        raise ValueError(
            f"{describe_input(entry)}: image has shape {tuple(image.shape)}, expected ({num_channels}, H, W)"
        )
    if torch.compiler.is_compiling() or not image.is_floating_point() or image.device.type != "cpu":
        return
    # The sum is a hundred times faster than a test of each pixel, and it is not finite if a pixel is not.
    if not bool(image.sum(dtype=torch.float32).isfinite()) and not bool(image.isfinite().all()):
        raise ValueError(f"{describe_input(entry)}: the image contains values that are not finite")


def get_gt_instances(
    batched_inputs: Sequence[ModelInput], device: torch.device, *, num_classes: int | None = None
) -> list[Instances]:
    """Return the ground truth of each image on ``device``.

    Args:
        batched_inputs: the batch.
        device: device of the model.
        num_classes: if given, ``gt_classes`` must be below it.

    Raises:
        ValueError: if an input has no ``instances``, or a box or class that cannot be trained on.
    """
    for entry in batched_inputs:
        if "instances" not in entry:
            raise ValueError(f"{describe_input(entry)}: losses need 'instances' in every input")
        _check_boxes(entry)
        if num_classes is not None:
            _check_classes(entry, num_classes)
    return [entry["instances"].to(device) for entry in batched_inputs]


def get_proposals(batched_inputs: Sequence[ModelInput], device: torch.device) -> list[Instances]:
    """Return the precomputed proposals of each image on ``device``.

    Raises:
        ValueError: if an input has none.
    """
    for entry in batched_inputs:
        if "proposals" not in entry:
            raise ValueError(
                f"{describe_input(entry)}: a model without proposal generator needs 'proposals' in every input"
            )
    return [entry["proposals"].to(device) for entry in batched_inputs]


def get_label_maps(batched_inputs: Sequence[ModelInput], device: torch.device) -> list[Tensor]:
    """Return the ``(H, W)`` semantic labels of each image on ``device``.

    Raises:
        ValueError: if an input has none.
    """
    for entry in batched_inputs:
        if "sem_seg" not in entry:
            raise ValueError(f"{describe_input(entry)}: losses need 'sem_seg' in every input")
    return [entry["sem_seg"].to(device) for entry in batched_inputs]


def batch_label_maps(
    batched_inputs: Sequence[ModelInput],
    backbone: BackboneProtocol,
    device: torch.device,
    *,
    num_classes: int,
    ignore_value: int,
) -> Tensor:
    """Pad the label maps of a batch like its images, with ``ignore_value``.

    Args:
        batched_inputs: the batch.
        backbone: its padding constraints also apply to the images.
        device: device of the model.
        num_classes: number of semantic classes.
        ignore_value: label of pixels without loss.

    Returns:
        ``(B, H, W)`` labels.

    Raises:
        ValueError: if an input has no ``sem_seg``, or a label that is neither a class nor ``ignore_value``.
    """
    maps = get_label_maps(batched_inputs, device)
    for entry in batched_inputs:
        _check_labels(entry, num_classes, ignore_value)
    return ImageList.from_tensors(
        maps, backbone.size_divisibility, ignore_value, backbone.padding_constraints
    ).tensor


def _check_classes(entry: ModelInput, num_classes: int) -> None:
    """Refuse classes out of range, which would count as background, or end the process on a GPU."""
    classes = entry["instances"].gt_classes
    is_wrong = (classes < 0) | (classes >= num_classes)
    if bool(is_wrong.any()):
        i = int(is_wrong.nonzero()[0])
        raise ValueError(
            f"{describe_input(entry)}: ground-truth class {int(classes[i])} of box {i}; "
            f"the model has classes 0 to {num_classes - 1}"
        )


def _check_boxes(entry: ModelInput) -> None:
    """Refuse degenerate boxes: they make the loss NaN several steps later, when the image is no longer known."""
    boxes = entry["instances"].gt_boxes.tensor
    sides = boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]
    is_wrong = ~(boxes.isfinite().all(dim=1) & (sides > 0).all(dim=1))
    if bool(is_wrong.any()):
        i = int(is_wrong.nonzero()[0])
        raise ValueError(
            f"{describe_input(entry)}: ground-truth box {i} is {boxes[i].tolist()}; "
            "boxes must be finite with positive sides"
        )


def _check_labels(entry: ModelInput, num_classes: int, ignore_value: int) -> None:
    """Refuse labels out of range, which would end the process on a GPU."""
    labels = entry["sem_seg"]
    if labels.numel() == 0 or (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        return
    wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != ignore_value)]
    if wrong.numel() > 0:
        raise ValueError(
            f"{describe_input(entry)}: sem_seg has label {int(wrong[0])}; "
            f"labels are 0 to {num_classes - 1} or {ignore_value}"
        )
