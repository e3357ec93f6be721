import io
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from hydet.data import Metadata
from hydet.evaluation import CocoEvaluator, Evaluator, RotatedCocoEvaluator
from hydet.structures import Boxes, Instances, RotatedBoxes

SIZE = (400, 400)
CLASSES, IDS = ("cat", "dog", "owl"), (17, 3, 90)


class FakeDataset:
    """``objects``: for each image (boxes (n, 5), classes, crowd)."""

    metadata = Metadata(thing_classes=CLASSES, thing_ids=IDS)

    def __init__(self, objects, key="rotated_bbox"):
        self.objects = objects
        self.key = key

    def to_coco(self):
        annotations = []
        for image_id, (boxes, classes, crowd) in enumerate(self.objects, start=1):
            for box, c, iscrowd in zip(np.asarray(boxes, dtype=float).tolist(), classes, crowd):
                cx, cy, w, h, _ = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": IDS[c],
                        "bbox": [cx - w / 2, cy - h / 2, w, h],
                        self.key: box,
                        "area": w * h,
                        "iscrowd": int(iscrowd),
                    }
                )
        return {
            "images": [{"id": i, "height": 400, "width": 400} for i in range(1, len(self.objects) + 1)],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in zip(IDS, CLASSES)],
        }


def random_boxes(rng, n, degrees=0.0):
    """Return boxes in quarters of a pixel, so that every format represents them exactly."""
    centers, sides = rng.integers(200, 1400, size=(n, 2)) / 4, rng.integers(8, 320, size=(n, 2)) / 2
    return np.concatenate([centers, sides, rng.uniform(-degrees, degrees, size=(n, 1))], axis=1)


def random_scene(seed, images=12, degrees=0.0, crowds=0.15):
    """Return objects and detections: several near each object, wrong classes, random boxes, and equal scores."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for i in range(images):
        n = 0 if i == 4 else 14
        boxes, classes = random_boxes(rng, n, degrees), rng.integers(0, 3 if i else 2, n)
        objects.append((boxes, classes, rng.random(n) < crowds))
        near = np.repeat(boxes, 6, axis=0)
        near[:, :2] += rng.integers(-12, 13, size=(len(near), 2)) / 2
        near[:, 2:4] = (near[:, 2:4] + rng.integers(-12, 13, size=(len(near), 2)) / 2).clip(min=1)
        near[:, 4] += rng.normal(0, degrees / 10, len(near))
        detected = np.concatenate([near, random_boxes(rng, 30, degrees)])
        guesses = np.concatenate([np.repeat(classes, 6), rng.integers(0, 3, 30)])
        guesses = np.where(rng.random(len(guesses)) < 0.2, rng.integers(0, 3, len(guesses)), guesses)
        detections.append((detected, rng.integers(0, 12, len(detected)) / 12, guesses))
    return FakeDataset(objects), detections


def as_results(detections, upright=False):
    for image_id, (boxes, scores, classes) in enumerate(detections, start=1):
        tensor = torch.as_tensor(np.asarray(boxes).reshape(-1, 5), dtype=torch.float32)
        half = tensor[:, 2:4] / 2
        xyxy = torch.cat([tensor[:, :2] - half, tensor[:, :2] + half], dim=1)
        yield (
            [{"image_id": image_id, "file_name": f"{image_id}.png"}],
            [
                {
                    "instances": Instances(
                        SIZE,
                        pred_boxes=Boxes(xyxy) if upright else RotatedBoxes(tensor),
                        scores=torch.as_tensor(scores, dtype=torch.float32),
                        pred_classes=torch.as_tensor(classes, dtype=torch.int64),
                    )
                }
            ],
        )


def measure(evaluator, results):
    for inputs, outputs in results:
        evaluator.update(inputs, outputs)
    return evaluator.compute()


@pytest.mark.parametrize(
    ("max_detections", "backend"),
    [(100, "faster_coco_eval"), (100, "pycocotools"), (7, "pycocotools"), (1, "faster_coco_eval")],
)
def test_upright_boxes_score_as_in_coco(max_detections, backend):
    dataset, detections = random_scene(max_detections)
    options = {"max_detections": max_detections, "per_class_metrics": True}
    coco = CocoEvaluator(dataset, iou_types=("bbox",), backend=backend, **options)
    expected = measure(coco, as_results(detections, upright=True))
    metrics = measure(RotatedCocoEvaluator(dataset, **options), as_results(detections))
    assert len(metrics) == 6 + 4 + 3
    for name, value in metrics.items():
        assert value == pytest.approx(expected[name.replace("rotated/", "box/")], abs=1e-12, nan_ok=True), (
            name
        )
    assert 0.02 < metrics["rotated/AP"] < 0.9 and not math.isnan(metrics["rotated/APs"])


def test_an_iou_that_is_exactly_a_threshold_counts():
    ground_truth = [([[50, 50, 10, 10, 0]], [0], [False])]
    for width, reached in ((7, 5), (9, 9), (6, 3)):  # IoU 0.7 reaches 0.50, 0.55 ... 0.70
        detections = [([[50 - (10 - width) / 2, 50, width, 10, 0]], [1.0], [0])]
        metrics = measure(RotatedCocoEvaluator(FakeDataset(ground_truth)), as_results(detections))
        assert metrics["rotated/AP"] == pytest.approx(reached / 10)


def turned(boxes, degrees, center=(200.0, 200.0)):
    """Rotate the image counter-clockwise."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    boxes = np.array(boxes, dtype=float).reshape(-1, 5)
    x, y = boxes[:, 0] - center[0], boxes[:, 1] - center[1]
    boxes[:, 0], boxes[:, 1] = center[0] + c * x + s * y, center[1] - s * x + c * y
    boxes[:, 4] += degrees
    return boxes


@pytest.mark.parametrize("degrees", [37.0, 90.0, 360.0, -540.0])
def test_rotating_all_boxes_changes_nothing(degrees):
    dataset, detections = random_scene(5, degrees=180.0)
    before = measure(RotatedCocoEvaluator(dataset), as_results(detections))
    around = FakeDataset([(turned(boxes, degrees), *rest) for boxes, *rest in dataset.objects])
    after = measure(
        RotatedCocoEvaluator(around),
        as_results([(turned(boxes, degrees), *rest) for boxes, *rest in detections]),
    )
    assert after == pytest.approx(before, abs=2e-3)  # IoU that float32 puts on the other side of a threshold
    assert before["rotated/AP"] > 0.1


@pytest.mark.parametrize("other", [[50, 50, 40, 10, 390], [50, 50, 40, 10, -150], [50, 50, 10, 40, 120]])
def test_representations_of_the_same_box_are_equal(other):
    dataset = FakeDataset([([[50, 50, 40, 10, 30]], [0], [False])])
    metrics = measure(RotatedCocoEvaluator(dataset), as_results([([other], [1.0], [0])]))
    assert metrics["rotated/AP"] == pytest.approx(1.0)


def test_a_wrong_angle_is_a_miss_for_long_boxes_only():
    dataset = FakeDataset([([[50, 50, 80, 10, 30], [200, 200, 40, 40, 30]], [0, 1], [False, False])])
    detections = [([[50, 50, 80, 10, 60], [200, 200, 40, 40, 120]], [1.0, 1.0], [0, 1])]
    metrics = measure(RotatedCocoEvaluator(dataset, per_class_metrics=True), as_results(detections))
    assert metrics["rotated/AP/cat"] == 0
    assert metrics["rotated/AP/dog"] == pytest.approx(1.0)
    assert math.isnan(metrics["rotated/AP/owl"])


def test_detections_inside_a_turned_crowd_are_no_false_positives():
    crowd = [200, 200, 200, 60, 45]
    dataset = FakeDataset([([[50, 50, 20, 20, 0], crowd], [0, 0], [False, True])])
    inside = turned([[170, 200, 20, 20, 0], [230, 190, 20, 20, 10]], 45)
    outside = [[270, 270, 20, 20, 0]]  # inside only if the crowd is turned the other way

    def ap(others):
        boxes = np.concatenate([others, [[50, 50, 20, 20, 0]]])
        scores = np.linspace(1, 0.5, len(boxes))
        detections = [(boxes, scores, np.zeros(len(boxes), dtype=int))]
        return measure(RotatedCocoEvaluator(dataset), as_results(detections))["rotated/AP"]

    assert ap(inside) == pytest.approx(1.0)
    assert ap(outside) == pytest.approx(0.5)


def test_sizes_are_measured_on_the_rotated_box():
    dataset = FakeDataset([([[50, 50, 30, 30, 45]], [0], [False])])  # its upright frame is medium
    metrics = measure(RotatedCocoEvaluator(dataset), as_results([([[50, 50, 30, 30, 45]], [1.0], [0])]))
    assert metrics["rotated/APs"] == pytest.approx(1.0) and math.isnan(metrics["rotated/APm"])


def test_ap_without_detections_is_zero_and_without_objects_nan():
    dataset, detections = random_scene(6)
    nothing = [(np.zeros((0, 5)), [], []) for _ in detections]
    assert measure(RotatedCocoEvaluator(dataset), as_results(nothing))["rotated/AP"] == 0
    empty = FakeDataset([(np.zeros((0, 5)), [], []) for _ in detections])
    metrics = measure(RotatedCocoEvaluator(empty), as_results(detections))
    assert all(math.isnan(value) for value in metrics.values())


def test_only_evaluated_images_count():
    dataset, _ = random_scene(7, crowds=0.0)
    perfect = [(boxes, np.ones(len(boxes)), classes) for boxes, classes, _ in dataset.objects[:2]]
    assert measure(RotatedCocoEvaluator(dataset), as_results(perfect))["rotated/AP"] == pytest.approx(1.0)


def test_some_but_not_all_annotations_may_lack_a_rotated_box():
    class Mixed(FakeDataset):
        def to_coco(self):
            coco = super().to_coco()
            del coco["annotations"][0]["rotated_bbox"]
            return coco

    boxes = [[50, 50, 40, 10, 0], [200, 200, 40, 10, 30]]
    perfect = [(boxes, [1.0, 1.0], [0, 1])]
    dataset = Mixed([(boxes, [0, 1], [False, False])])
    assert measure(RotatedCocoEvaluator(dataset), as_results(perfect))["rotated/AP"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no rotated boxes"):
        measure(RotatedCocoEvaluator(FakeDataset(dataset.objects, key="other")), as_results(perfect))


def test_tables_and_reset():
    dataset, detections = random_scene(8)
    evaluator = RotatedCocoEvaluator(dataset)
    measure(evaluator, as_results(detections))
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert all(name in text for name in CLASSES) and "12 images" in text
    evaluator.reset()
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_implements_the_evaluator_protocol():
    assert isinstance(RotatedCocoEvaluator(FakeDataset([])), Evaluator)


def test_invalid_results_are_named():
    dataset, detections = random_scene(9, images=1)
    with pytest.raises(ValueError, match=r"1\.png.*5"):
        measure(RotatedCocoEvaluator(dataset), as_results(detections, upright=True))
    ((inputs, outputs),) = as_results(detections)
    with pytest.raises(ValueError, match="404"):
        measure(RotatedCocoEvaluator(dataset), [([{"image_id": 404}], outputs)])
    with pytest.raises(ValueError, match="image_id"):
        RotatedCocoEvaluator(dataset).update([{"file_name": "1.png"}], outputs)
    outputs[0]["instances"].pred_classes[3] = 3
    with pytest.raises(ValueError, match="class 3"):
        RotatedCocoEvaluator(dataset).update(inputs, outputs)
    with pytest.raises(ValueError, match="max_detections"):
        RotatedCocoEvaluator(dataset, max_detections=0)
