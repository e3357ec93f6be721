"""Names of the categories of COCO."""

from __future__ import annotations

__all__: list[str] = []


def coco_names() -> dict[int, str]:
    """Return the names of the 80 COCO categories that are used, by id."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {i: name for i, name in enumerate(names) if name not in ("__background__", "N/A")}
