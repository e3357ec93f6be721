"""Names and ids of the classes of a published dataset, known without its annotation files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import nn

from hydet.data import Metadata
from hydet.data.coco.keypoint_layout import KeypointLayout, layout_of_names

from .build import build_dataset
from .tasks import traits_of

__all__ = ["known_metadata"]

# COCO numbers its 80 object classes from 1 to 90, and its stuff from 92. Label 0 of the stuff stands for all things.
_COCO_THING_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
_COCO_STUFF_IDS = (
    0, 92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154,
    155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201),
)  # fmt: skip
_THING_IDS = {"coco_instance": _COCO_THING_IDS, "coco_panoptic": _COCO_THING_IDS}
_STUFF_IDS = {"coco_panoptic": _COCO_STUFF_IDS}


def known_metadata(config: DictConfig, model: nn.Module, class_names: Sequence[str] = ()) -> Metadata:
    """Return the metadata of the dataset that a model was trained on.

    Args:
        config: a composed config; its ``data`` is the option of the dataset.
        model: the model of the config; keypoints and stuff are left out if it does not predict them.
        class_names: names of the classes, if they are not those of ``config.data``.

    Returns:
        Class names of ``class_names``, of ``config.data``, or of the annotation file that it names, if that exists.
        Without any of them, classes have the names ``class 1`` to ``class K``.
    """
    data, num_classes = config.data, int(config.num_classes)
    names = tuple(class_names) or tuple(data.get("class_names") or ())
    if not names and Path(str(OmegaConf.select(data, "val.json"))).is_file():
        return build_dataset(config, "val").metadata
    if len(names) != num_classes:
        names = tuple(f"class {i + 1}" for i in range(num_classes))
    tasks = traits_of(model).tasks
    keypoints = (
        layout_of_names(data.get("keypoint_names") or ()) if "keypoints" in tasks else KeypointLayout()
    )
    stuff = tuple(data.get("stuff_names") or ()) if {"semantic", "panoptic"} & set(tasks) else ()
    name = str(data.get("name", ""))
    return Metadata(
        name=name,
        thing_classes=names,
        thing_ids=_if_as_many(_THING_IDS.get(name, ()), names),
        keypoint_names=keypoints.names,
        keypoint_flip_pairs=keypoints.flip_pairs,
        keypoint_sigmas=keypoints.sigmas,
        keypoint_skeleton=keypoints.skeleton,
        mirrors_keypoints=keypoints.can_mirror,
        stuff_classes=stuff,
        stuff_ids=_if_as_many(_STUFF_IDS.get(name, ()), stuff),
    )


def _if_as_many(ids: tuple[int, ...], names: Sequence[str]) -> tuple[int, ...]:
    """Return the ids if there is one per name; otherwise ``Metadata`` numbers the names."""
    return ids if len(ids) == len(names) else ()
