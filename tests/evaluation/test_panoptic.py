import io
import math
import time

import numpy as np
import pytest
import torch
from rich.console import Console

from hydet.data import Metadata
from hydet.evaluation import Evaluator, PanopticEvaluator

THINGS, STUFF = ("cat", "dog"), ("things", "sky", "grass")


class FakeDataset:
    metadata = Metadata(thing_classes=THINGS, stuff_classes=STUFF)


def segment(number, category, isthing=True, **extra):
    return {"id": number, "category_id": category, "isthing": isthing, **extra}


def batch(gt, truth_info, pred, found_info, name="a.png"):
    as_ids = lambda ids: torch.as_tensor(np.asarray(ids), dtype=torch.int32)  # noqa: E731
    entry = {
        "file_name": name,
        "ground_truth": {"panoptic_seg": as_ids(gt), "segments_info": truth_info},
    }
    return [entry], [{"panoptic_seg": (as_ids(pred), found_info)}]


def measure(*scenes):
    evaluator = PanopticEvaluator(FakeDataset())
    for scene in scenes:
        evaluator.update(*batch(*scene))
    return evaluator, evaluator.compute()


def random_scene(rng, height=14, width=17):
    """Blocks of segments, voids and crowds; the prediction is the ground truth, shifted and partly relabeled."""
    gt = np.zeros((height, width), dtype=np.int64)
    numbers = rng.choice(np.arange(1, 70000), size=9, replace=False).tolist()
    truth_info = []
    for number in numbers:
        y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
        gt[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = number
        isthing = bool(rng.random() < 0.6)
        category = int(rng.integers(0, 2) if isthing else rng.integers(1, 3))
        truth_info.append(segment(number, category, isthing, iscrowd=isthing and rng.random() < 0.3))
    truth_info = [s for s in truth_info if (gt == s["id"]).any()]
    pred = np.roll(gt, rng.integers(0, 3), axis=int(rng.integers(0, 2)))
    filler = rng.choice(numbers)
    pred[pred == 0] = filler if rng.random() < 0.5 else 0
    found_info = []
    for new, s in enumerate(truth_info, start=1):
        pred[pred == s["id"]] = -new
        category, isthing = s["category_id"], s["isthing"]
        if rng.random() < 0.2:
            category, isthing = int(rng.integers(0, 2)), bool(rng.random() < 0.7)
        found_info.append(segment(new, category, isthing))
    pred = np.where(pred < 0, -pred, 0)
    found_info = [s for s in found_info if (pred == s["id"]).any()]
    return gt, truth_info, pred, found_info


def slow_quality(scenes):
    """The definition on sets of pixels, one pair of segments after the other."""
    tally = {}
    for gt, truth_info, pred, found_info in scenes:
        pixels = lambda ids, s: {*np.flatnonzero(ids == s["id"]).tolist()}  # noqa: E731
        category = lambda s: (bool(s["isthing"]), s["category_id"])  # noqa: E731
        labeled = set().union(*[pixels(gt, s) for s in truth_info])
        void = {*range(gt.size)} - labeled
        used_truth, used_found = set(), set()
        for t in truth_info:
            for f in found_info:
                if t.get("iscrowd") or category(t) != category(f):
                    continue
                a, b = pixels(gt, t), pixels(pred, f)
                iou = len(a & b) / len(a | (b - void))
                if iou > 0.5:
                    tally.setdefault(category(t), []).append(("tp", iou))
                    used_truth.add(t["id"])
                    used_found.add(f["id"])
        for t in truth_info:
            if not t.get("iscrowd") and t["id"] not in used_truth:
                tally.setdefault(category(t), []).append(("fn", 0))
        for f in found_info:
            free = set(void)
            for t in truth_info:
                if t.get("iscrowd") and category(t) == category(f):
                    free |= pixels(gt, t)
            segment_pixels = pixels(pred, f)
            if f["id"] not in used_found and not len(segment_pixels & free) / len(segment_pixels) > 0.5:
                tally.setdefault(category(f), []).append(("fp", 0))
    result = {}
    for suffix, groups in {"": (True, False), "_th": (True,), "_st": (False,)}.items():
        rows = []
        for key, events in tally.items():
            if key[0] in groups:
                kinds = [kind for kind, _ in events]
                ious = [iou for kind, iou in events if kind == "tp"]
                rq = len(ious) / (len(ious) + (kinds.count("fp") + kinds.count("fn")) / 2)
                sq = sum(ious) / len(ious) if ious else 0.0
                rows.append((sq * rq, sq, rq))
        means = np.mean(rows, axis=0) if rows else [math.nan] * 3
        result |= {f"panoptic/{n}{suffix}": v for n, v in zip(("PQ", "SQ", "RQ"), means)}
    return result


def test_metrics_equal_the_slow_definition():
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(60)]
    for group in [*[[s] for s in scenes], scenes]:
        assert measure(*group)[1] == pytest.approx(slow_quality(group), abs=1e-12, nan_ok=True)
    total = measure(*scenes)[1]
    assert 0.2 < total["panoptic/PQ_th"] < 0.9 and 0.2 < total["panoptic/PQ_st"] < 0.9


def test_perfect_results_score_one_with_any_ids():
    rng = np.random.default_rng(1)
    for _ in range(10):
        gt, info, _, _ = random_scene(rng)
        info = [{**s, "iscrowd": False} for s in info]
        new = {s["id"]: i for i, s in enumerate(info, start=1)}
        renamed = np.vectorize(lambda v, new=new: new.get(v, 0))(gt)
        metrics = measure((gt, info, renamed, [{**s, "id": new[s["id"]]} for s in info]))[1]
        assert metrics["panoptic/PQ"] == metrics["panoptic/SQ"] == metrics["panoptic/RQ"] == 1


def test_an_overlap_of_exactly_one_half_is_no_match():
    info = [segment(1, 0)]
    metrics = measure(([[1, 1]], info, [[1, 0]], info))[1]
    assert metrics["panoptic/PQ"] == 0 and metrics["panoptic/RQ"] == 0
    assert measure(([[1, 1, 1]], info, [[1, 1, 0]], info))[1]["panoptic/PQ"] == pytest.approx(2 / 3)


def test_void_pixels_do_not_count_in_the_union():
    info = [segment(1, 0)]
    assert measure(([[1, 1, 0, 0]], info, [[1, 1, 1, 1]], info))[1]["panoptic/PQ"] == 1


def test_void_in_the_prediction_is_a_miss():
    info = [segment(1, 0), segment(2, 0)]
    metrics = measure(([[1, 1, 2, 2]], info, [[1, 1, 0, 0]], [segment(1, 0)]))[1]
    assert metrics["panoptic/RQ"] == pytest.approx(1 / 1.5) and metrics["panoptic/SQ"] == 1


@pytest.mark.parametrize(
    ("pred", "category", "mistakes"),
    [
        ([0, 0, 0, 0, 0, 0], 0, 0),  # a crowd is no miss
        ([9, 9, 9, 9, 0, 0], 0, 0),  # and a prediction on it no mistake
        ([9, 9, 9, 9, 0, 0], 1, 1),  # unless it is of another class
        ([0, 0, 9, 9, 9, 9], 0, 1),  # or only half of it is in the crowd
        ([0, 9, 9, 9, 9, 9], 0, 0),
    ],
)
def test_crowds(pred, category, mistakes):
    gt = [[5, 5, 5, 5, 6, 6, 1, 2]]  # a crowd of cats, grass, a cat, a dog
    truth_info = [segment(5, 0, iscrowd=True), segment(6, 2, False), segment(1, 0), segment(2, 1)]
    found_info = [segment(9, category), segment(1, 0), segment(2, 1)]
    metrics = measure((gt, truth_info, [[*pred, 1, 2]], found_info))[1]
    rates = [1.0, 1.0]
    rates[category] = 1 / (1 + mistakes / 2)
    assert metrics["panoptic/RQ_th"] == pytest.approx(np.mean(rates))


@pytest.mark.parametrize("void", [1, 2, 3])
def test_predictions_mostly_in_void_are_no_false_positives(void):
    gt = [[0] * void + [6] * (4 - void) + [1]]
    info = [segment(6, 2, False), segment(1, 0)]
    metrics = measure((gt, info, [[9] * 4 + [1]], [segment(9, 1), segment(1, 0)]))[1]
    assert metrics["panoptic/RQ_th"] == (
        1.0 if void == 3 else 0.5
    )  # a dog that is there by mistake is a category


def test_several_crowds_of_a_class_excuse_together():
    info = [segment(5, 0, iscrowd=True), segment(6, 0, iscrowd=True), segment(7, 1)]
    metrics = measure(([[5, 6, 7]], info, [[1, 1, 1]], [segment(1, 0)]))[1]
    assert metrics["panoptic/PQ"] == 0
    metrics = measure(
        ([[5, 6, 7, 8]], [*info, segment(8, 0)], [[1, 1, 1, 2]], [segment(1, 0), segment(2, 0)])
    )[1]
    assert metrics["panoptic/PQ"] == 0.5  # the dog is missed, cats are perfect


def test_things_and_stuff_with_the_same_id_are_different_categories():
    metrics = measure(
        ([[1, 2]], [segment(1, 1), segment(2, 1, False)], [[1, 2]], [segment(1, 1, False), segment(2, 1)])
    )[1]
    assert metrics["panoptic/PQ"] == 0
    metrics = measure(
        ([[1, 2]], [segment(1, 1), segment(2, 1, False)], [[1, 2]], [segment(1, 1), segment(2, 2, False)])
    )[1]
    assert metrics["panoptic/PQ_th"] == 1 and metrics["panoptic/PQ_st"] == 0
    assert metrics["panoptic/PQ"] == pytest.approx(1 / 3)  # dog, sky and grass


def test_groups_that_do_not_occur_are_nan():
    info = [segment(1, 0)]
    metrics = measure(([[1]], info, [[1]], info))[1]
    assert math.isnan(metrics["panoptic/PQ_st"]) and metrics["panoptic/PQ_th"] == 1


def test_segments_without_pixels_do_not_count():
    metrics = measure(([[1]], [segment(1, 0), segment(2, 1)], [[1]], [segment(1, 0), segment(3, 1)]))[1]
    assert metrics["panoptic/PQ"] == 1


def test_tables_and_reset():
    evaluator, _ = measure(random_scene(np.random.default_rng(2)))
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert "cat" in text and "things" in text and "PQ" in text
    evaluator.reset()
    assert evaluator.tables() == []
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_a_full_size_image_takes_milliseconds():
    coarse = np.random.default_rng(3).integers(0, 40, size=(24, 32))
    gt, pred = np.kron(coarse, np.ones((20, 20))), np.kron(coarse, np.ones((20, 20)))
    pred = np.roll(pred, 5, axis=1)
    info = [segment(i, i % 2) for i in range(1, 40)]
    inputs, outputs = batch(gt, info, pred, info)
    evaluator = PanopticEvaluator(FakeDataset())
    start = time.process_time()
    for _ in range(5):
        evaluator.update(inputs, outputs)
    assert (time.process_time() - start) / 5 < 0.2  # about 0.01


def test_implements_the_evaluator_protocol():
    assert isinstance(PanopticEvaluator(FakeDataset()), Evaluator)


@pytest.mark.parametrize(
    ("entry", "output", "match"),
    [
        ({}, {"panoptic_seg": (torch.zeros(2, 2), [])}, "no ground truth"),
        ({"ground_truth": {"panoptic_seg": torch.zeros(2, 2)}}, {"sem_seg": None}, "sem_seg"),
        (
            {"ground_truth": {"panoptic_seg": torch.zeros(2, 3)}},
            {"panoptic_seg": (torch.zeros(3, 2), [])},
            "2 x 3",
        ),
        (
            {"ground_truth": {"panoptic_seg": torch.zeros(1, 1)}},
            {"panoptic_seg": (torch.ones(1, 1), [])},
            "segment 1",
        ),
        (
            {"ground_truth": {"panoptic_seg": torch.zeros(1, 1)}},
            {"panoptic_seg": (torch.full((1, 1), 7), [segment(9, 0)])},
            "segment 7",
        ),
        (
            {"ground_truth": {"panoptic_seg": torch.zeros(1, 1), "segments_info": [segment(1, 2)]}},
            {"panoptic_seg": (torch.zeros(1, 1), [])},
            "segment 1 of the ground truth has category 2",
        ),
        (
            {"ground_truth": {"panoptic_seg": torch.zeros(1, 1)}},
            {"panoptic_seg": (torch.zeros(1, 1), [segment(1, 0), segment(1, 1)])},
            "differ",
        ),
    ],
)
def test_invalid_results_are_named(entry, output, match):
    with pytest.raises(ValueError, match=match) as error:
        PanopticEvaluator(FakeDataset()).update([{"file_name": "b.png", **entry}], [output])
    assert "b.png" in str(error.value)
