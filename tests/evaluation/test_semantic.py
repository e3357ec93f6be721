import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from hydet.data import Metadata
from hydet.evaluation import Evaluator, SemanticEvaluator

NAMES = ("things", "sky", "grass", "road")


class FakeDataset:
    def __init__(self, names=NAMES):
        self.metadata = Metadata(stuff_classes=names)


def as_logits(labels, num_classes=4):
    return torch.nn.functional.one_hot(torch.as_tensor(labels).long(), num_classes).permute(2, 0, 1).float()


def batch(gt_labels, predicted, name="a.png"):
    entry = {"file_name": name, "ground_truth": {"sem_seg": torch.as_tensor(gt_labels, dtype=torch.uint8)}}
    return [entry], [{"sem_seg": as_logits(predicted)}]


def measure(*pairs, **options):
    evaluator = SemanticEvaluator(FakeDataset(), **options)
    for gt_labels, predicted in pairs:
        evaluator.update(*batch(gt_labels, predicted))
    return evaluator, evaluator.compute()


def slow_metrics(pairs, num_classes=4, ignore=255):
    """Compute the metrics by their definitions on sets of pixels."""
    gt_labels = np.concatenate([np.ravel(t) for t, _ in pairs])
    predicted = np.concatenate([np.ravel(p) for _, p in pairs])[gt_labels != ignore]
    gt_labels = gt_labels[gt_labels != ignore]
    ious, accuracies, weighted = [], [], 0.0
    for c in range(num_classes):
        both, either = (
            ((gt_labels == c) & (predicted == c)).sum(),
            ((gt_labels == c) | (predicted == c)).sum(),
        )
        if either and (gt_labels == c).any():
            ious.append(both / either)
            weighted += (gt_labels == c).mean() * ious[-1]
        if (gt_labels == c).any():
            accuracies.append(both / (gt_labels == c).sum())
    return {
        "semantic/mIoU": np.mean(ious),
        "semantic/fwIoU": weighted,
        "semantic/mACC": np.mean(accuracies),
        "semantic/pACC": (gt_labels == predicted).mean(),
    }


def random_pairs(seed, labels=(0, 1, 2, 255), pred_labels=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    shapes = [(9, 12), (5, 4), (1, 1)]
    return [(rng.choice(labels, size=shape), rng.choice(pred_labels, size=shape)) for shape in shapes]


@pytest.mark.parametrize("pred_labels", [(0, 1, 2), (1, 2, 3), (3,)])  # 3 is never in the ground truth
def test_metrics_follow_their_definitions(pred_labels):
    pairs = random_pairs(0, pred_labels=pred_labels)
    assert measure(*pairs)[1] == pytest.approx(slow_metrics(pairs), abs=1e-12)


def test_metrics_of_a_small_example():
    gt_labels, predicted = [[1, 1, 1, 2], [255, 2, 2, 2]], [[1, 1, 2, 2], [3, 2, 2, 0]]
    metrics = measure((gt_labels, predicted))[1]
    # label 1: 2 of 3; label 2: 3 shared of 5 in either; label 0: predicted once and wrong; label 3 only where void
    assert metrics["semantic/mIoU"] == pytest.approx((2 / 3 + 3 / 5) / 2)
    assert metrics["semantic/fwIoU"] == pytest.approx(3 / 7 * 2 / 3 + 4 / 7 * 3 / 5)
    assert metrics["semantic/mACC"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert metrics["semantic/pACC"] == pytest.approx(5 / 7)


def test_perfect_results_score_one_and_void_pixels_do_not_count():
    gt_labels = np.array([[0, 1, 2], [255, 2, 255]])
    for filler in (0, 3):
        metrics = measure((gt_labels, np.where(gt_labels == 255, filler, gt_labels)))[1]
        assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0))


def test_another_ignore_value():
    pairs = random_pairs(1, labels=(0, 1, 2, 3))
    assert measure(*pairs, ignore_value=3)[1] == pytest.approx(slow_metrics(pairs, ignore=3), abs=1e-12)


def test_metrics_without_labeled_pixels_are_nan():
    evaluator, metrics = measure(([[255]], [[0]]))
    assert all(math.isnan(value) for value in metrics.values())
    assert evaluator.tables()


def test_batches_and_order_make_no_difference():
    pairs = random_pairs(2)
    evaluator = SemanticEvaluator(FakeDataset())
    inputs, outputs = zip(*[(i[0], o[0]) for i, o in (batch(*pair) for pair in reversed(pairs))])
    evaluator.update(inputs, outputs)
    assert evaluator.compute() == measure(*pairs)[1]


def test_tables_and_reset():
    evaluator, _ = measure(*random_pairs(3))
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert all(name in text for name in NAMES) and "images" in text
    evaluator.reset()
    assert evaluator.tables() == []
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_labels_without_names_are_numbers():
    evaluator = SemanticEvaluator(FakeDataset(names=()))
    evaluator.update(*batch([[0, 1]], [[0, 1]]))
    assert evaluator.compute()["semantic/mIoU"] == 1
    with pytest.raises(ValueError, match=r"b\.png.*\(2, 1, 1\)"):
        evaluator.update(
            [{"file_name": "b.png", "ground_truth": {"sem_seg": torch.zeros(1, 1)}}],
            [{"sem_seg": torch.zeros(2, 1, 1)}],
        )


def test_implements_the_evaluator_protocol():
    assert isinstance(SemanticEvaluator(FakeDataset()), Evaluator)


@pytest.mark.parametrize(
    ("entry", "output", "match"),
    [
        ({}, {"sem_seg": torch.zeros(4, 2, 2)}, "no ground truth"),
        ({"ground_truth": {"sem_seg": torch.zeros(2, 2)}}, {"instances": None}, "instances"),
        ({"ground_truth": {"sem_seg": torch.zeros(2, 3)}}, {"sem_seg": torch.zeros(4, 3, 2)}, "2 x 3"),
        (
            {"ground_truth": {"sem_seg": torch.zeros(2, 2)}},
            {"sem_seg": torch.zeros(5, 2, 2)},
            "stuff_classes",
        ),
        ({"ground_truth": {"sem_seg": torch.full((2, 2), 4)}}, {"sem_seg": torch.zeros(4, 2, 2)}, "label 4"),
        (
            {"ground_truth": {"sem_seg": torch.full((2, 2), -1)}},
            {"sem_seg": torch.zeros(4, 2, 2)},
            "label -1",
        ),
    ],
)
def test_invalid_results_are_named(entry, output, match):
    with pytest.raises(ValueError, match=match) as error:
        SemanticEvaluator(FakeDataset()).update([{"file_name": "b.png", **entry}], [output])
    assert "b.png" in str(error.value)
