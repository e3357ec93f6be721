"""Overview of all ops and the backends that they would use."""

from __future__ import annotations

from typing import Final, Literal

import torch

from hydet.kernels.box_iou_rotated.op import PREFERENCE as BOX_IOU_ROTATED
from hydet.kernels.dispatch import Backend, Preference
from hydet.kernels.match_anchors.op import PREFERENCE as MATCH_ANCHORS
from hydet.kernels.nms_padded.op import PREFERENCE as NMS_PADDED
from hydet.kernels.nms_rotated.op import PREFERENCE as NMS_ROTATED
from hydet.kernels.paste_masks.op import PREFERENCE as PASTE_MASKS
from hydet.kernels.roi_align.op import PREFERENCE as ROI_ALIGN
from hydet.kernels.roi_align_rotated.op import PREFERENCE as ROI_ALIGN_ROTATED
from hydet.kernels.sigmoid_focal_loss.op import PREFERENCE as SIGMOID_FOCAL_LOSS
from hydet.kernels.winograd_conv2d.op import PREFERENCE as WINOGRAD_CONV2D

__all__ = ["PREFERENCES", "backends", "choose"]

PREFERENCES: Final[dict[str, Preference]] = {
    preference.op_name: preference
    for preference in (
        BOX_IOU_ROTATED,
        MATCH_ANCHORS,
        NMS_PADDED,
        NMS_ROTATED,
        PASTE_MASKS,
        ROI_ALIGN,
        ROI_ALIGN_ROTATED,
        SIGMOID_FOCAL_LOSS,
        WINOGRAD_CONV2D,
    )
}


def choose(op_name: str, device: torch.device | str) -> Backend:
    """Return the backend that an op would use for tensors of ``device``.

    Args:
        op_name: name of the op in ``torch.ops.hydet``, such as ``nms_padded``.
        device: device of the tensors.

    Raises:
        ValueError: if there is no such op, or ``HYDET_KERNELS`` names no backend.
        RuntimeError: if the backend forced by ``HYDET_KERNELS`` cannot run on ``device``.
    """
    if op_name not in PREFERENCES:
        raise ValueError(f"unknown op {op_name!r}; the ops are {', '.join(PREFERENCES)}")
    return PREFERENCES[op_name].choose(device)


def backends() -> dict[str, dict[str, Backend | Literal["unavailable"]]]:
    """Return the backend of every op as ``{op: {"cpu": backend, "cuda": backend}}``.

    ``cuda`` is listed even on machines without a GPU. The value is ``unavailable`` where the backend forced by
    ``HYDET_KERNELS`` cannot run.
    """

    def backend_or_unavailable(preference: Preference, device_type: str) -> Backend | Literal["unavailable"]:
        try:
            return preference.choose(device_type)
        except RuntimeError:
            return "unavailable"

    return {
        op_name: {
            device_type: backend_or_unavailable(preference, device_type) for device_type in ("cpu", "cuda")
        }
        for op_name, preference in PREFERENCES.items()
    }
