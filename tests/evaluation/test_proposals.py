import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from hydet.data import Metadata
from hydet.evaluation import Evaluator, ProposalEvaluator
from hydet.evaluation.proposals import _best_pairs
from hydet.structures import Boxes, Instances, RotatedBoxes

SIZE = (400, 400)


class FakeDataset:
    """``objects``: for each image (boxes (n, 4) as xyxy, areas, crowd); classes are drawn."""

    metadata = Metadata(thing_classes=("cat", "dog"), thing_ids=(4, 2))

    def __init__(self, objects, rotated=True):
        self.objects = objects
        self.rotated = rotated

    def to_coco(self):
        annotations = []
        for image_id, (boxes, areas, crowd) in enumerate(self.objects, start=1):
            for (x1, y1, x2, y2), area, iscrowd in zip(np.asarray(boxes, float).tolist(), areas, crowd):
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 2 + 2 * (len(annotations) % 2),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(iscrowd),
                }
                if self.rotated:  # the same box, a quarter turned
                    entry["rotated_bbox"] = [(x1 + x2) / 2, (y1 + y2) / 2, y2 - y1, x2 - x1, 90.0]
                annotations.append(entry)
        return {
            "info": {},
            "images": [{"id": i, "height": 400, "width": 400} for i in range(1, len(self.objects) + 1)],
            "annotations": annotations,
            "categories": [{"id": 2, "name": "dog"}, {"id": 4, "name": "cat"}],
        }


def random_scene(seed, images=8):
    rng = np.random.default_rng(seed)
    objects, proposals = [], []
    for i in range(images):
        corners = rng.integers(0, 600, size=(0 if i == 2 else 12, 2)) / 2
        boxes = np.concatenate([corners, corners + rng.integers(8, 280, size=corners.shape) / 2], axis=1)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        objects.append((boxes, areas, rng.random(len(boxes)) < 0.2))
        near = np.repeat(boxes, 15, axis=0) + rng.integers(-30, 31, size=(15 * len(boxes), 4)) / 2
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        proposals.append((near, rng.integers(-20, 20, len(near)) / 4))
    return FakeDataset(objects), proposals


def as_results(proposals, rotated=False):
    for image_id, (boxes, scores) in enumerate(proposals, start=1):
        tensor = torch.as_tensor(np.asarray(boxes).reshape(-1, 4), dtype=torch.float32)
        x1, y1, x2, y2 = tensor.unbind(1)
        turned = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, y2 - y1, x2 - x1, torch.full_like(x1, -90)], 1)
        instances = Instances(
            SIZE,
            proposal_boxes=RotatedBoxes(turned) if rotated else Boxes(tensor),
            objectness_logits=torch.as_tensor(scores, dtype=torch.float32),
        )
        yield [{"image_id": image_id, "file_name": f"{image_id}.png"}], [{"proposals": instances}]


def measure(dataset, results, **options):
    evaluator = ProposalEvaluator(dataset, **options)
    for inputs, outputs in results:
        evaluator.update(inputs, outputs)
    return evaluator.compute()


def coco_recall(dataset, proposals, limits):
    """COCO's own evaluation without classes."""
    instances = [
        {"image_id": i, "category_id": 2, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
        for i, (boxes, scores) in enumerate(proposals, start=1)
        for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = dataset.to_coco()
        ground_truth.createIndex()
        run = COCOeval(ground_truth, ground_truth.loadRes(instances), "bbox")
        run.params.useCats = 0
        run.params.maxDets = sorted(limits)
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"][:, 0].mean(axis=0)  # (sizes, limits)
    return {
        f"proposals/AR{limit}{size}": recall[a, sorted(limits).index(limit)]
        for limit in limits
        for a, size in enumerate(("", "s", "m", "l"))
    }


@pytest.mark.parametrize("limits", [(100, 1000), (1, 5, 20)])
def test_metrics_equal_coco_without_classes(limits):
    dataset, proposals = random_scene(0)
    metrics = measure(dataset, as_results(proposals), limits=limits, match_by="score")
    assert metrics == pytest.approx(coco_recall(dataset, proposals, limits), abs=1e-12)
    few, many = metrics[f"proposals/AR{limits[0]}"], metrics[f"proposals/AR{limits[-1]}"]
    assert 0 < few < many < 1


def test_the_best_pairs_are_matched_first():
    overlaps = np.array([[0.6, 0.9], [0.0, 0.8], [0.55, 0.0]])
    # By score, proposal 0 would take object 1 and proposal 1 nothing above 0.8; by overlap too, object 0 gets the rest.
    assert _best_pairs(overlaps).tolist() == [0.55, 0.9]
    assert _best_pairs(np.zeros((0, 2))).tolist() == [0, 0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        overlaps = rng.random(rng.integers(1, 9, size=2))
        left, expected = overlaps.copy(), np.zeros(overlaps.shape[1])
        for _ in range(min(overlaps.shape)):
            row, column = np.unravel_index(left.argmax(), left.shape)
            expected[column] = left[row, column]
            left[row], left[:, column] = -1, -1
        assert _best_pairs(overlaps).tolist() == expected.tolist()


def test_rotated_proposals_are_compared_with_rotated_boxes():
    dataset, proposals = random_scene(1)
    upright = measure(dataset, as_results(proposals))
    assert measure(dataset, as_results(proposals, rotated=True)) == pytest.approx(upright, abs=1e-12)
    with pytest.raises(ValueError, match="no rotated boxes"):
        measure(FakeDataset(dataset.objects, rotated=False), as_results(proposals, rotated=True))


def test_order_of_proposals_does_not_matter_but_their_scores_do():
    dataset, proposals = random_scene(2)
    shuffled = []
    for boxes, scores in proposals:
        scores = np.argsort(np.argsort(scores, kind="stable"), kind="stable")  # no ties
        shuffled.append((boxes, scores))
    before = measure(dataset, as_results(shuffled), limits=(5,))
    back = [(boxes[::-1].copy(), scores[::-1].copy()) for boxes, scores in shuffled]
    assert measure(dataset, as_results(back), limits=(5,)) == before
    assert measure(dataset, as_results([(b, -s) for b, s in shuffled]), limits=(5,)) != before


def test_recall_of_ground_truth_is_one_and_of_no_proposals_zero():
    dataset, _ = random_scene(3)
    perfect = [(boxes, np.zeros(len(boxes))) for boxes, _, _ in dataset.objects]
    assert measure(dataset, as_results(perfect))["proposals/AR100"] == pytest.approx(1.0)
    nothing = [(np.zeros((0, 4)), []) for _ in dataset.objects]
    assert measure(dataset, as_results(nothing))["proposals/AR1000"] == 0


def test_crowds_are_no_objects():
    boxes = [[0, 0, 50, 50], [100, 100, 300, 300]]
    dataset = FakeDataset([(boxes, [2500, 40000], [False, True])])
    metrics = measure(dataset, as_results([(boxes[:1], [0.0])]))
    assert metrics["proposals/AR100"] == 1 and math.isnan(metrics["proposals/AR100l"])


def test_tables_and_reset():
    dataset, proposals = random_scene(4)
    evaluator = ProposalEvaluator(dataset)
    assert isinstance(evaluator, Evaluator)
    for inputs, outputs in as_results(proposals):
        evaluator.update(inputs, outputs)
    evaluator.compute()
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert "1000" in text and "ARs" in text
    evaluator.reset()
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_invalid_results_are_named():
    dataset, proposals = random_scene(5)
    results = list(as_results(proposals[:2]))
    with pytest.raises(ValueError, match=r"1\.png.*instances"):
        measure(dataset, [(results[0][0], [{"instances": None}])])
    with pytest.raises(ValueError, match="404"):
        measure(dataset, [([{"image_id": 404}], results[0][1])])
    with pytest.raises(ValueError, match="rotated"):
        measure(dataset, [results[0], list(as_results(proposals[:2], rotated=True))[1]])
    for limits in ((), (0, 100)):
        with pytest.raises(ValueError, match="limits"):
            ProposalEvaluator(dataset, limits=limits)
