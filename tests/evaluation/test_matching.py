import numpy as np
import pytest

from hydet.evaluation import matching
from hydet.evaluation.average_precision import accumulate, average_recall
from hydet.evaluation.matching import ImageOverlaps, match, top_scores_per_class

NO_CROWD, ONE_CROWD = (False, False), (False, True)


def one_image(overlaps, scores, crowd=NO_CROWD, areas=(100.0, 100.0), **options):
    overlaps = np.array(overlaps)
    return ImageOverlaps(
        classes=np.zeros(len(overlaps), dtype=int),
        scores=np.array(scores),
        areas=np.full(len(overlaps), 100.0),
        gt_classes=np.zeros(2, dtype=int),
        gt_areas=np.array(areas),
        gt_crowd=np.array(crowd),
        overlaps=overlaps,
        **options,
    )


def matched(*args, **options):
    """Return for detections by descending score if they match, and if they match an ignored object, at IoU 0.5."""
    result = match([one_image(*args, **options)])
    hits = np.zeros((2, len(result.classes)), dtype=bool)
    there = result.candidates >= 0
    for row, values in zip(hits, (result.matched, result.to_ignored)):
        row[there] = values[0, 0, result.candidates[there]]
    return hits.tolist()


def test_the_highest_score_chooses_first():
    assert matched([[0.6, 0], [0.9, 0]], [0.9, 0.8]) == [[True, False], [False, False]]


def test_the_second_choice_is_taken_if_the_first_is_taken():
    assert matched([[0.9, 0.6], [0.95, 0]], [0.5, 0.6])[0] == [True, True]


def test_a_crowd_is_the_last_choice_and_never_used_up():
    assert matched([[0.6, 0.9]] * 3, [0.3, 0.2, 0.1], ONE_CROWD) == [[True] * 3, [False, True, True]]


def test_an_object_of_another_size_is_ignored_and_used_up():
    image = one_image([[0.9, 0], [0.9, 0]], [0.9, 0.8], areas=(5000.0, 100.0))
    result = match([image])
    small = 1
    assert result.to_ignored[small, 0].tolist() == [True, False]
    assert result.matched[small, 0].tolist() == [True, False]
    assert not result.ignored_if_unmatched[small].any()  # the second one is small, so it is a mistake


def test_equal_overlaps_match_the_later_object():
    # the first detection takes object 1, so the second, which overlaps only that one, matches nothing
    assert matched([[0.8, 0.8], [0, 0.7]], [0.9, 0.8])[0] == [True, False]


def test_equal_scores_choose_in_order():
    assert matched([[0.9, 0.0], [0.9, 0.0]], [0.5, 0.5])[0] == [True, False]


def test_ignored_detections_without_a_match_are_no_false_positives():
    images = [
        one_image(
            [[0.9, 0], [0, 0], [0, 0.9]],
            [0.3, 0.2, 0.1],
            ignore_if_unmatched=np.array([False, ignored, False]),
        )
        for ignored in (True, False)
    ]
    precise, not_precise = (accumulate(match([i]), 1, 100).precision[0, -1, 0, 0, 0] for i in images)
    assert precise == pytest.approx(1.0) and not_precise == pytest.approx(2 / 3)


def test_average_recall_counts_the_best_detections_only():
    result = match([one_image([[0, 0], [0.76, 0], [0, 0.5]], [0.9, 0.8, 0.7])])
    assert [average_recall(result, limit)[0] for limit in (1, 2, 3)] == pytest.approx([0, 0.3, 0.35])
    assert np.isnan(average_recall(result, 3)[3])  # no large object


def random_images(seed, count=6):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        d, g = int(rng.integers(0, 40)), int(rng.integers(0, 8))
        images.append(
            ImageOverlaps(
                classes=rng.integers(0, 3, d),
                scores=rng.integers(0, 9, d) / 8,
                areas=rng.uniform(1, 20000, d),
                gt_classes=rng.integers(0, 3, g),
                gt_areas=rng.uniform(1, 20000, g),
                gt_crowd=rng.random(g) < 0.2,
                overlaps=rng.integers(0, 20, (d, g)) / 20,  # many ties, many exactly at thresholds
            )
        )
    return images


def slow_match(image, t, low, high):
    """One detection, one object after the other; returns (score, right, ignored) for each detection of each class."""
    result = {}
    ignored_truth = image.gt_crowd | (image.gt_areas < low) | (image.gt_areas > high)
    overlap = np.zeros((len(image.classes), len(image.gt_classes)))
    overlap[image.rows, image.columns] = image.ious
    used = set()
    for d in sorted(range(len(image.scores)), key=lambda i: -image.scores[i]):
        best = None
        for wanted in (False, True):
            for g in range(len(image.gt_classes)):
                free = g not in used or image.gt_crowd[g]
                if ignored_truth[g] != wanted or not free or overlap[d, g] < t:
                    continue
                if best is None or overlap[d, g] >= overlap[d, best]:
                    best = g
            if best is not None:
                break
        used.add(best)
        outside = not low <= image.areas[d] <= high
        event = (best is not None, bool(ignored_truth[best]) if best is not None else outside)
        result.setdefault(int(image.classes[d]), []).append((float(image.scores[d]), *event))
    return result


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_images_match_like_single_images(seed):
    images = random_images(seed)
    result = match(images)
    for a, (low, high) in enumerate(matching.AREA_RANGES):
        for k, t in enumerate(matching.IOU_THRESHOLDS):
            alone = [slow_match(image, t, low, high) for image in images]
            for c in range(3):
                events = [event for per_class in alone for event in per_class.get(c, [])]
                events.sort(key=lambda event: -event[0])  # stable
                rows = np.flatnonzero(result.classes == c)
                candidates = result.candidates[rows]
                hit = np.where(candidates >= 0, result.matched[a, k, candidates], False)
                ignored = np.where(candidates >= 0, result.to_ignored[a, k, candidates], False)
                ignored |= ~hit & result.ignored_if_unmatched[a, rows]
                assert [e[1:] for e in events] == list(zip(hit.tolist(), ignored.tolist()))


def test_the_memory_bound_does_not_change_results(monkeypatch):
    images = random_images(3)
    whole = match(images)
    monkeypatch.setattr(matching, "ELEMENTS_AT_ONCE", 1)
    parts = match(images)
    np.testing.assert_array_equal(whole.matched, parts.matched)
    np.testing.assert_array_equal(whole.to_ignored, parts.to_ignored)
    assert whole.matched.any() and whole.to_ignored.any()


def test_no_images():
    result = match([])
    assert result.matched.shape[2] == 0 and len(result.classes) == 0
    assert (accumulate(result, 2, 100).precision == -1).all()


def test_top_scores_keep_the_first_of_equal_scores_in_each_class():
    classes, scores = np.array([0, 1, 0, 0, 1]), np.array([0.1, 0.5, 0.9, 0.9, 0.5])
    assert top_scores_per_class(classes, scores, 1).tolist() == [1, 2]
    assert top_scores_per_class(classes, scores, 2).tolist() == [1, 2, 3, 4]
    assert top_scores_per_class(classes[:0], scores[:0], 2).tolist() == []
