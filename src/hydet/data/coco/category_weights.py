"""How often the classes of a dataset are drawn as negatives of the federated loss."""

from __future__ import annotations

import json as json_module
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hydet.data.errors import DataError

__all__ = ["frequency_weights"]


def frequency_weights(*, json: str | Path, num_classes: int, power: float = 0.5) -> Tensor:
    """The number of images of each class, to a power.

    Args:
        json: annotations of the training data, in the format of LVIS (categories with ``image_count``) or COCO.
        num_classes: what the model expects.
        power: 1 for the frequencies themselves, 0 for equal weights.

    Returns:
        ``(num_classes,)`` float weights in the order of the category ids. All are 1, with a warning, if there is no
        such file: a model that loads its weights from a checkpoint finds these there too.

    Raises:
        DataError: if the file has another number of categories.

    Source: Zhou et al. 2021 (arXiv:2103.07461), section 5.2.
    """
    path = Path(json)
    if not path.is_file():
        warnings.warn(
            f"{path} does not exist: all classes weigh the same in the federated loss", stacklevel=2
        )
        return torch.ones(num_classes)
    content = json_module.loads(path.read_text())
    categories = sorted(content.get("categories", []), key=lambda c: c["id"])
    if len(categories) != num_classes:
        raise DataError(f"{path} has {len(categories)} categories, the model {num_classes}")
    counts = _image_counts(content, categories)
    return torch.tensor([float(count) for count in counts]) ** power


def _image_counts(content: dict[str, Any], categories: list[dict[str, Any]]) -> list[int]:
    if all("image_count" in c for c in categories):
        return [c["image_count"] for c in categories]
    images: dict[int, set[int]] = {c["id"]: set() for c in categories}
    for annotation in content.get("annotations", []):
        images[annotation["category_id"]].add(annotation["image_id"])
    return [len(images[c["id"]]) for c in categories]
