"""Class weights for the negative sampling of the federated loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydet.data.coco.json_values import read_json
from hydet.data.errors import DataError

__all__ = ["frequency_weights"]


def frequency_weights(*, json: str | Path, num_classes: int, power: float = 0.5) -> Tensor:
    """Return the number of images with each class, raised to a power.

    Args:
        json: annotations of the training data, in LVIS format (categories with ``image_count``) or COCO format.
        num_classes: number of classes of the model.
        power: 1 for the frequencies themselves, 0 for equal weights.

    Returns:
        ``(num_classes,)`` float weights in ascending order of category ids. If the file does not exist, the function
        warns and returns ones, because a model that loads a checkpoint gets its weights from there.

    Raises:
        DataError: if the file has another number of categories.

    Source: Zhou et al. 2021 (arXiv:2103.07461), section 5.2.
    """
    path = Path(json)
    if not path.is_file():
        warnings.warn(
            f"{path} does not exist: the federated loss uses equal weights for all classes", stacklevel=2
        )
        return torch.ones(num_classes)
    content = read_json(path)
    categories = sorted(content.get("categories", []), key=lambda c: c["id"])
    if len(categories) != num_classes:
        raise DataError(f"{path} has {len(categories)} categories, the model {num_classes}")
    counts = _image_counts(content, categories)
    return torch.tensor([float(count) for count in counts]) ** power


def _image_counts(content: Mapping[str, Any], categories: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the number of images with each category."""
    if all("image_count" in c for c in categories):
        return [c["image_count"] for c in categories]
    image_ids: dict[int, set[int]] = {c["id"]: set() for c in categories}
    for annotation in content.get("annotations", []):
        image_ids[annotation["category_id"]].add(annotation["image_id"])
    return [len(image_ids[c["id"]]) for c in categories]
