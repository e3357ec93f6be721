"""Average precision of masks by boundary IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hydet.data.datasets.coco_format import CocoJson

from .average_precision import PrecisionRecall, accumulate
from .coco_results import CocoResult, RunLengths
from .ground_truth_objects import GroundTruthObjects, objects_by_image
from .mask_overlaps import limit_by_boundaries, mask_areas, mask_overlaps, to_run_lengths
from .matching import ImageOverlaps, match, top_scores_per_class

__all__ = ["boundary_precision"]


def boundary_precision(
    ground_truth: CocoJson,
    results: Mapping[int, Sequence[CocoResult]],
    thing_ids: Sequence[int],
    *,
    max_detections: int,
    dilation_ratio: float,
) -> PrecisionRecall:
    """Compute COCO's precision and recall with the smaller of mask IoU and boundary IoU in place of mask IoU.

    Args:
        ground_truth: ground truth in COCO's format.
        results: results with ``segmentation`` per image id; only these images count.
        thing_ids: category ids of the K classes, in the order of the result.
        max_detections: detections per image and class that count, those with the highest scores.
        dilation_ratio: width of a boundary over the diagonal of the image.

    Source: Cheng et al. 2021 (arXiv:2103.16562), section 5. Large masks have a smaller boundary IoU than mask IoU when
    their outlines are coarse; the minimum keeps small masks, which are all boundary, at their mask IoU.
    """
    objects = objects_by_image(ground_truth, thing_ids)
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    class_of = {category_id: k for k, category_id in enumerate(thing_ids)}
    overlaps = []
    for image_id, image_results in results.items():
        classes = np.array([class_of[r["category_id"]] for r in image_results], dtype=np.int64)
        scores = np.array([r["score"] for r in image_results], dtype=np.float64)
        best = top_scores_per_class(classes, scores, max_detections)
        masks = [image_results[i]["segmentation"] for i in best.tolist()]
        overlaps.append(
            _image_overlaps(
                classes[best], scores[best], masks, objects[image_id], sizes[image_id], dilation_ratio
            )
        )
    return accumulate(match(overlaps), len(thing_ids), max_detections)


def _image_overlaps(
    classes: np.ndarray,
    scores: np.ndarray,
    masks: list[RunLengths],
    objects: GroundTruthObjects,
    size: tuple[int, int],
    dilation_ratio: float,
) -> ImageOverlaps:
    gt_masks = [to_run_lengths(region, size) for region in objects.regions]
    overlaps = mask_overlaps(masks, gt_masks, objects.crowd)
    overlaps *= classes[:, None] == objects.classes  # other pairs need no boundaries
    return ImageOverlaps(
        classes=classes,
        scores=scores,
        areas=mask_areas(masks),
        gt_classes=objects.classes,
        gt_areas=objects.areas,
        gt_crowd=objects.crowd,
        overlaps=limit_by_boundaries(overlaps, masks, gt_masks, objects.crowd, dilation_ratio),
    )
