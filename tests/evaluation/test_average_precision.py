import math

import numpy as np
import pytest

from hydet.evaluation.average_precision import (
    PrecisionRecall,
    accumulate,
    average_recall,
    class_ap,
    mean_of_measured,
    summarize,
)
from hydet.evaluation.matching import ImageOverlaps, match


def make_matching(overlaps, scores, gt_class=0):
    overlaps = np.array(overlaps, dtype=float).reshape(len(scores), -1)
    num_objects = overlaps.shape[1]
    image = ImageOverlaps(
        classes=np.zeros(len(scores), dtype=int),
        scores=np.array(scores, dtype=float),
        areas=np.full(len(scores), 100.0),
        gt_classes=np.full(num_objects, gt_class),
        gt_areas=np.full(num_objects, 100.0),
        gt_crowd=np.zeros(num_objects, dtype=bool),
        overlaps=overlaps,
    )
    return match([image])


def test_precision_is_the_highest_at_this_or_a_higher_recall():
    matching = make_matching([[0, 0], [1, 0], [0, 1]], [0.9, 0.8, 0.7])  # wrong, right, right
    results = accumulate(matching, 1, 100)
    curve = results.precision[0, :, 0, 0, 0]
    np.testing.assert_allclose(curve, 2 / 3)
    assert results.recall[0, 0, 0, 0] == 1 and results.max_detections == [100]


def test_classes_without_objects_are_not_measured():
    results = accumulate(make_matching([[1.0]], [0.9]), 2, 100)
    assert class_ap(results.precision) == [pytest.approx(1.0), pytest.approx(math.nan, nan_ok=True)]
    assert summarize(results, with_counts=False)["AP"] == pytest.approx(1.0)


def test_detections_without_objects_count_in_no_class():
    assert math.isnan(mean_of_measured(np.array([-1.0, -1.0])))
    assert mean_of_measured(np.array([0.5, -1.0])) == 0.5


def test_average_recall_is_nan_for_sizes_without_objects():
    recall = average_recall(make_matching([[1.0]], [0.9]), 10)
    assert recall[:2].tolist() == [1.0, 1.0] and np.isnan(recall[2:]).all()


def test_counts_are_reported_if_they_were_measured():
    shape = (10, 101, 1, 4, 3)
    results = PrecisionRecall(
        np.ones(shape), np.ones((10, 1, 4, 3)), np.linspace(0.5, 0.95, 10), max_detections=[1, 10, 100]
    )
    results.recall[..., 0] = 0.25
    metrics = summarize(results, with_counts=True)
    assert metrics["AR1"] == 0.25 and metrics["AR10"] == metrics["AR"] == 1.0
    assert "AR1" not in summarize(results, with_counts=False)
