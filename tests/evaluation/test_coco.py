import io
import math
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from hydet.evaluation import CocoEvaluator, Evaluator
from hydet.structures import Boxes, Instances

SIZE = (120, 160)


def make_mask(box):
    x1, y1, x2, y2 = (round(v) for v in box)
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask


def as_polygon(box):
    x1, y1, x2, y2 = (round(v) for v in box)
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


class FakeDataset:
    """Random boxes of three classes whose ids in the file are not in order; image 3 is empty."""

    def __init__(self, num_images=6, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.metadata = SimpleNamespace(
            thing_classes=("cat", "dog", "owl"), thing_ids=(17, 3, 90), keypoint_sigmas=(0.05, 0.1)
        )
        self.objects = []
        for image_id in range(1, num_images + 1):
            n = 0 if image_id == 3 else 5
            corner = torch.rand(n, 2, generator=generator) * 60
            sides = 8 + torch.rand(n, 2, generator=generator) * 50
            boxes = torch.cat([corner, corner + sides], 1)
            classes = torch.randint(0, 3, (n,), generator=generator)
            points = corner[:, None] + torch.rand(n, 2, 2, generator=generator) * sides[:, None]
            self.objects.append((image_id, boxes, classes, points))

    def to_coco(self):
        annotations = []
        for image_id, boxes, classes, points in self.objects:
            for i, (box, c) in enumerate(zip(boxes.tolist(), classes.tolist())):
                visible = torch.cat([points[i], torch.full((2, 1), 2.0)], 1)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": self.metadata.thing_ids[c],
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": (box[2] - box[0]) * (box[3] - box[1]),
                        "segmentation": as_polygon(box),
                        "keypoints": visible.flatten().tolist(),
                        "iscrowd": int(i == 4),
                    }
                )
        return {
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i, *_ in self.objects],
            "annotations": annotations,
            "categories": [
                {"id": i, "name": n} for i, n in zip(self.metadata.thing_ids, self.metadata.thing_classes)
            ],
        }

    def results(self, noise=0.0, seed=1):
        generator = torch.Generator().manual_seed(seed)
        for image_id, boxes, classes, points in self.objects:
            n = boxes.shape[0]
            moved = (boxes + noise * torch.randn(n, 4, generator=generator)).clamp(min=0)
            moved = torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], 1)
            scored = points + noise * torch.randn(n, 2, 2, generator=generator)
            masks = torch.stack([make_mask(b) for b in moved.tolist()]) if n else torch.zeros(0, *SIZE).bool()
            instances = Instances(
                SIZE,
                pred_boxes=Boxes(moved),
                scores=torch.rand(n, generator=generator).mul(4).round() / 4,  # with ties
                pred_classes=classes,
                pred_masks=masks,
                pred_keypoints=torch.cat([scored, torch.ones(n, 2, 1)], 2),
            )
            yield [{"image_id": image_id}], [{"instances": instances}]


def measure(dataset, results, **options):
    evaluator = CocoEvaluator(dataset, iou_types=("bbox", "segm", "keypoints"), **options)
    for inputs, outputs in results:
        evaluator.update(inputs, outputs)
    return evaluator, evaluator.compute()


def test_perfect_results_score_one_in_every_task():
    dataset = FakeDataset()
    _, metrics = measure(dataset, dataset.results(), per_class_metrics=True)
    for name in ("box/AP", "box/AP50", "box/AR", "keypoints/AP", "box/AP/owl"):
        assert metrics[name] == pytest.approx(1.0)
    assert metrics["mask/AP"] > 0.95  # the ground truth's areas are not whole pixels
    assert math.isnan(metrics["box/APl"])  # no object above 96²


def test_both_backends_agree():
    dataset = FakeDataset()
    fast = measure(dataset, dataset.results(noise=3.0))[1]
    slow = measure(dataset, dataset.results(noise=3.0), backend="pycocotools")[1]
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        assert value == pytest.approx(slow[name], abs=1e-9, nan_ok=True), name
    assert 0 < fast["box/AP"] < 1
    assert fast["box/AP"] != fast["mask/AP"]


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_classes_keep_their_names_when_ids_are_not_in_order(backend):
    dataset = FakeDataset()

    def without_owls():
        for inputs, outputs in dataset.results():
            instances = outputs[0]["instances"]
            yield inputs, [{"instances": instances[instances.pred_classes != 2]}]

    metrics = measure(dataset, without_owls(), backend=backend, per_class_metrics=True)[1]
    assert metrics["box/AP/owl"] == 0
    assert metrics["box/AP/cat"] == pytest.approx(1.0)
    assert metrics["box/AP/dog"] == pytest.approx(1.0)


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_ap_without_detections_is_zero(backend):
    dataset = FakeDataset()
    nothing = [(i, [{"instances": o[0]["instances"][:0]}]) for i, o in dataset.results()]
    metrics = measure(dataset, nothing, backend=backend)[1]
    assert metrics["box/AP"] == metrics["mask/AP"] == metrics["keypoints/AP"] == 0


def test_only_evaluated_images_count():
    dataset = FakeDataset()
    metrics = measure(dataset, list(dataset.results())[:2])[1]
    assert metrics["box/AP"] == pytest.approx(1.0)


def test_detections_above_the_limit_are_dropped():
    dataset = FakeDataset()
    assert measure(dataset, dataset.results(), max_detections=1)[1]["box/AP"] < 0.8


def test_tables_list_every_class_and_do_not_count_crowds():
    dataset = FakeDataset()
    evaluator, _ = measure(dataset, dataset.results())
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert all(name in text for name in dataset.metadata.thing_classes)
    assert "100.0" in text and "6 images" in text


def test_reset_removes_all_results():
    dataset = FakeDataset()
    evaluator, _ = measure(dataset, dataset.results())
    evaluator.reset()
    assert evaluator.tables() == []
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_implements_the_evaluator_protocol():
    assert isinstance(CocoEvaluator(FakeDataset()), Evaluator)


def test_unknown_image_is_named():
    dataset = FakeDataset()
    evaluator = CocoEvaluator(dataset)
    _, outputs = next(iter(dataset.results()))
    evaluator.update([{"image_id": 404}], outputs)
    with pytest.raises(ValueError, match="404"):
        evaluator.compute()


def test_missing_masks_are_named():
    dataset = FakeDataset()
    inputs, outputs = next(iter(dataset.results()))
    outputs[0]["instances"].remove("pred_masks")
    with pytest.raises(ValueError, match="pred_masks"):
        CocoEvaluator(dataset).update(inputs, outputs)


def with_small_keypoints(dataset):
    """Return results that end with false positives whose boxes are of medium size and whose keypoints span little."""
    for inputs, outputs in dataset.results():
        instances = outputs[0]["instances"]
        stray = Instances(
            SIZE,
            pred_boxes=Boxes(torch.tensor([[90.0, 60.0, 150.0, 110.0]]).expand(3, 4)),
            scores=torch.full((3,), 2.0),
            pred_classes=torch.arange(3),
            pred_masks=torch.zeros(3, *SIZE, dtype=torch.bool),
            pred_keypoints=torch.tensor([[140.0, 100.0, 1.0], [150.0, 110.0, 1.0]]).expand(3, 2, 3),
        )
        yield inputs, [{"instances": Instances.cat([instances, stray])}]


@pytest.mark.parametrize("backend", ["faster_coco_eval", "pycocotools"])
def test_keypoint_ap_by_size_measures_detections_by_their_box_or_by_their_keypoints(backend):
    dataset = FakeDataset()
    results = list(with_small_keypoints(dataset))
    by_box = measure(dataset, results, backend=backend)[1]
    by_keypoints = measure(dataset, results, backend=backend, keypoint_area="keypoints")[1]
    assert by_keypoints["keypoints/APm"] == pytest.approx(1.0)  # the stray detections are not of medium size
    assert by_box["keypoints/APm"] < 0.9
    assert by_box["keypoints/AP"] == by_keypoints["keypoints/AP"]
    with pytest.raises(ValueError, match="keypoint_area"):
        CocoEvaluator(dataset, keypoint_area="mask")


@pytest.mark.parametrize(
    "options", [{"iou_types": ("box",)}, {"iou_types": ()}, {"backend": "own"}, {"max_detections": 0}]
)
def test_invalid_arguments_are_rejected(options):
    with pytest.raises(ValueError):
        CocoEvaluator(FakeDataset(), **options)


def test_keypoints_need_sigmas():
    dataset = FakeDataset()
    dataset.metadata.keypoint_sigmas = ()
    with pytest.raises(ValueError, match="sigmas"):
        CocoEvaluator(dataset, iou_types=("keypoints",))
