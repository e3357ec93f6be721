"""Class weights for the negative sampling of the federated loss."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hydet.data.coco.categories import read_categories
from hydet.data.coco.ids import IdTable
from hydet.data.coco.json_values import read_json, to_int
from hydet.data.coco.problems import ProblemHandler
from hydet.data.datasets.report import DataReport
from hydet.data.errors import DataError

__all__ = ["frequency_weights", "get_fed_loss_cls_weights"]


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
        DataError: if the file is not in one of these formats, or has another number of categories.

    Source: Zhou et al. 2021 (arXiv:2103.07461), section 5.2.
    """
    path = Path(json)
    if not path.is_file():
        warnings.warn(
            f"{path} does not exist: the federated loss uses equal weights for all classes", stacklevel=2
        )
        return torch.ones(num_classes)
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not a COCO file: it has no 'categories'")
    entries = content.get("annotations") or []
    if not isinstance(entries, list):
        raise DataError(f"{path}: is not a COCO file: 'annotations' is not a list")
    ids = IdTable(c.get("id") for c in _mappings(content.get("categories")))
    images_of = _images_of_categories(entries, ids)
    problems = ProblemHandler(path, policy="drop", report=DataReport(str(path)))  # the dataset reports them
    categories = read_categories(
        path, content.get("categories"), ids, used_ids=images_of.keys(), problems=problems
    )
    if len(categories) != num_classes:
        raise DataError(f"{path} has {len(categories)} categories, the model {num_classes}")
    counts = [c.image_count for c in categories.values() if c.image_count is not None]
    if len(counts) < num_classes:
        counts = [len(images_of.get(category_id, ())) for category_id in categories]
    return torch.tensor(counts, dtype=torch.float64).pow(power).float()


def get_fed_loss_cls_weights(
    dataset_names: str | Path | Sequence[str | Path], freq_weight_power: float = 1.0
) -> Tensor:
    """Return the number of images with each class, raised to a power: the documented call of detectron2.

    There is no catalog of datasets, so the "name" of a dataset is the path of its annotations. For a model, it has no
    arguments left: ``get_fed_loss_cls_weights=partial(get_fed_loss_cls_weights, "lvis_v1_train.json", 0.5)``.

    Args:
        dataset_names: annotations of the training data, in LVIS format (categories with ``image_count``) or COCO format.
            The classes of all files must be equal; as documented, the numbers are those of the first one.
        freq_weight_power: 1 for the frequencies themselves, 0 for equal weights.

    Returns:
        ``(K,)`` float weights in ascending order of category ids.

    Raises:
        DataError: if a file does not exist, is not in one of these formats, or has other categories than the first one.
        ValueError: if there is no name.
    """
    names = [dataset_names] if isinstance(dataset_names, str | Path) else list(dataset_names)
    if not names:
        raise ValueError("get_fed_loss_cls_weights takes the path of at least one annotation file, got none")
    weights: list[Tensor] = []
    ids: list[list[object]] = []
    for name in names:
        path = Path(name)
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; get_fed_loss_cls_weights takes paths of annotation files as dataset names"
            )
        content = read_json(path)
        categories = _mappings(content.get("categories")) if isinstance(content, dict) else []
        ids.append(sorted((category.get("id") for category in categories), key=str))
        if ids[-1] != ids[0]:
            raise DataError(f"{path}: its categories differ from those of {names[0]}")
        if len(weights) == 0:
            weights.append(frequency_weights(json=path, num_classes=len(categories), power=freq_weight_power))
    return weights[0]


def _images_of_categories(entries: Sequence[object], ids: IdTable) -> dict[int | None, set[object]]:
    """Return the image ids of each category."""
    images: dict[int | None, set[object]] = defaultdict(set)
    for entry in _mappings(entries):
        image_id = entry.get("image_id")
        if isinstance(image_id, int | float | str):
            images[ids.find(entry.get("category_id"))].add(to_int(image_id) or image_id)
    return images


def _mappings(entries: object) -> list[Mapping[str, object]]:
    """Return the mappings in a list, or none if the value is not a list."""
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
