import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from hydet.data import CocoDataset, Metadata
from hydet.evaluation import CocoEvaluator, Evaluator, LvisEvaluator
from hydet.structures import Boxes, Instances, polygons_to_bitmask

SIZE = (160, 200)
CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen")
IDS = (12, 5, 7, 1, 30, 2, 8, 4)
FREQUENCY = "rrccffff"

# Output of lvis 0.5.3 (with numpy 2.4.6, after `np.float = float`) for LvisScene(): results in the format of
# results_to_coco_json, masks without boxes; LVISResults(gt, results, max_dets) and
# LVISEval(gt, results, iou_type) with params.max_dets of 300 and 15.
LVIS_API = {
    300: {
        "box/AP": 0.35901782324660414,
        "box/AP50": 0.573935514122699,
        "box/AP75": 0.36934104674719653,
        "box/APs": 0.22965817804307903,
        "box/APm": 0.42360372381194367,
        "box/APl": 0.4666633663366337,
        "box/APr": 0.4212638021313543,
        "box/APc": 0.2982693954573766,
        "box/APf": 0.35826904769884294,
        "box/AR": 0.7528559491978609,
        "box/ARs": 0.5039583333333333,
        "box/ARm": 0.8113392857142856,
        "box/ARl": 0.8866666666666667,
        "mask/AP": 0.3072420199413861,
        "mask/AP50": 0.5474431275760566,
        "mask/AP75": 0.3163278587499778,
        "mask/APs": 0.16932415459952588,
        "mask/APm": 0.35735431871714535,
        "mask/APl": 0.6985082508250825,
        "mask/APr": 0.3696548311624256,
        "mask/APc": 0.24265869705254012,
        "mask/APf": 0.30832727577528946,
        "mask/AR": 0.6963034759358289,
        "mask/ARs": 0.43479166666666663,
        "mask/ARm": 0.7534176587301588,
        "mask/ARl": 0.8866666666666667,
    },
    15: {
        "box/AP": 0.2592984318820406,
        "box/AP50": 0.44811923395516806,
        "box/AP75": 0.2518110928537909,
        "box/APs": 0.11441831683168317,
        "box/APm": 0.3353367836783678,
        "box/APl": 0.20326732673267325,
        "box/APr": 0.3435459702142417,
        "box/APc": 0.18733203099721735,
        "box/APf": 0.25315786315835165,
        "box/AR": 0.43060912433155085,
        "box/ARs": 0.171875,
        "box/ARm": 0.5216517857142857,
        "box/ARl": 0.3633333333333333,
        "mask/AP": 0.21233992067873644,
        "mask/AP50": 0.42915880530360734,
        "mask/AP75": 0.20584060123045272,
        "mask/APs": 0.07871287128712871,
        "mask/APm": 0.2700194436460453,
        "mask/APl": 0.32495049504950496,
        "mask/APr": 0.2954322479674225,
        "mask/APc": 0.14182578972182933,
        "mask/APf": 0.20605082251284695,
        "mask/AR": 0.3690098596256684,
        "mask/ARs": 0.13270833333333334,
        "mask/ARm": 0.44882936507936505,
        "mask/ARl": 0.3633333333333333,
    },
}


def polygon_of(box, corners):
    x1, y1, x2, y2 = box
    return [v for x, y in [(x1, y1), (x2, y1), (x2, y2), (x1, y2)][:corners] for v in (x, y)]


class LvisScene:
    """Objects of 8 classes in 12 images with LVIS's lists, and detections with many errors.

    Drawn from a generator whose stream never changes.
    """

    metadata = Metadata(thing_classes=CLASSES, thing_ids=IDS)

    def __init__(self, seed=0, num_images=12):
        rng = np.random.RandomState(seed)
        self.objects, self.found, self.absent, self.not_exhaustive = [], [], [], []
        for i in range(num_images):
            n = 0 if i == 3 else 9
            boxes, classes = self._boxes(rng, n), rng.randint(0, 8, n)
            corners = rng.randint(3, 5, n)
            self.objects.append((boxes, classes, corners))
            others = np.setdiff1d(np.arange(8), classes)
            self.absent.append(others[rng.rand(len(others)) < 0.5])
            present = np.unique(classes)
            self.not_exhaustive.append(present[rng.rand(len(present)) < 0.3])
            near = np.repeat(boxes, 4, axis=0) + rng.randint(-5, 6, size=(4 * n, 4))
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
            detected = np.concatenate([near.clip(0, [199, 159, 200, 160]), self._boxes(rng, 25)])
            guesses = np.concatenate([np.repeat(classes, 4), rng.randint(0, 8, 25)])
            guesses = np.where(rng.rand(len(guesses)) < 0.15, rng.randint(0, 8, len(guesses)), guesses)
            shapes = np.concatenate([np.repeat(corners, 4), rng.randint(3, 5, 25)])
            self.found.append((detected, guesses, shapes, rng.randint(1, 20, len(guesses)) / 20))

    @staticmethod
    def _boxes(rng, n):
        corners = rng.randint(0, 60, size=(n, 2))
        return np.concatenate([corners, corners + rng.randint(5, 140, size=(n, 2))], axis=1).clip(
            0, [199, 159, 200, 160]
        )

    def to_coco(self):
        annotations, images = [], []
        for image_id, (boxes, classes, corners) in enumerate(self.objects, start=1):
            lists = {"neg_category_ids": self.absent, "not_exhaustive_category_ids": self.not_exhaustive}
            images.append(
                {"id": image_id, "file_name": f"{image_id}.png", "height": SIZE[0], "width": SIZE[1]}
                | {key: [IDS[c] for c in values[image_id - 1]] for key, values in lists.items()}
            )
            for box, c, k in zip(boxes.tolist(), classes, corners):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": IDS[c],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1) * (1.0 if k == 4 else 0.5),
                        "segmentation": [polygon_of(box, k)],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": i, "name": n, "frequency": f} for i, n, f in zip(IDS, CLASSES, FREQUENCY)]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}

    def results(self):
        for image_id, (boxes, classes, corners, scores) in enumerate(self.found, start=1):
            polygons = [polygon_of(box, k) for box, k in zip(boxes.tolist(), corners)]
            masks = [polygons_to_bitmask([np.array(p, dtype=float)], *SIZE) for p in polygons]
            yield (
                [{"image_id": image_id, "file_name": f"{image_id}.png"}],
                [
                    {
                        "instances": Instances(
                            SIZE,
                            pred_boxes=Boxes(torch.as_tensor(boxes, dtype=torch.float32)),
                            pred_classes=torch.as_tensor(classes, dtype=torch.int64),
                            scores=torch.as_tensor(scores, dtype=torch.float64),
                            pred_masks=torch.as_tensor(np.stack(masks)),
                        )
                    }
                ],
            )


def measure(dataset, results=None, **options):
    evaluator = LvisEvaluator(dataset, **options)
    for inputs, outputs in dataset.results() if results is None else results:
        evaluator.update(inputs, outputs)
    return evaluator, evaluator.compute()


@pytest.mark.parametrize("max_detections", [300, 15])
def test_the_numbers_are_those_of_the_lvis_api(max_detections):
    _, metrics = measure(LvisScene(), max_detections=max_detections)
    expected = LVIS_API[max_detections]
    assert metrics.keys() == expected.keys()
    assert metrics == pytest.approx(expected, abs=1e-12)


def without_rules(scene):
    """The same objects, with every class annotated in every image."""
    scene.absent = [np.arange(8)] * len(scene.objects)
    scene.not_exhaustive = [np.zeros(0, dtype=int)] * len(scene.objects)
    return scene


def test_equals_coco_if_every_class_is_annotated_everywhere():
    scene = without_rules(LvisScene(seed=1))
    coco = CocoEvaluator(scene, max_detections=300)
    for inputs, outputs in scene.results():
        coco.update(inputs, outputs)
    expected, (_, metrics) = coco.compute(), measure(scene)
    for name, value in metrics.items():
        if name[-1] not in "rcf":
            assert value == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def one_image(absent=(), not_exhaustive=(), guess=1):
    """A perfect detection of an ant, after a false one of another class with a higher score."""
    scene = LvisScene(num_images=1)
    scene.objects = [(np.array([[10, 10, 50, 50], [100, 100, 140, 140]]), np.array([0, 1]), np.array([4, 4]))]
    scene.absent, scene.not_exhaustive = [np.array(absent, int)], [np.array(not_exhaustive, int)]
    boxes = np.array([[60, 20, 90, 50], [10, 10, 50, 50], [100, 100, 140, 140]])
    scene.found = [(boxes, np.array([guess, 0, 1]), np.full(3, 4), np.array([0.9, 0.8, 0.8]))]
    return scene


@pytest.mark.parametrize(
    ("rules", "ap"),
    [
        ({"guess": 1}, 0.75),  # bees are all annotated, so a bee too many is a mistake
        ({"guess": 1, "not_exhaustive": [1]}, 1.0),
        ({"guess": 1, "not_exhaustive": [0]}, 0.75),
    ],
)
def test_false_positives_depend_on_the_annotated_classes(rules, ap):
    metrics = measure(one_image(**rules))[1]
    assert metrics["box/AP"] == pytest.approx(ap)
    assert metrics["mask/AP"] == pytest.approx(ap)


@pytest.mark.parametrize(("absent", "ap"), [([], 1.0), ([2], 0.5), ([3], 1.0)])
def test_detections_of_a_class_without_annotations_are_not_counted(absent, ap):
    first, second = one_image(absent=absent, guess=2), one_image()
    first.objects.append((np.array([[0, 0, 40, 40]]), np.array([2]), np.array([4])))  # a cow elsewhere
    first.found.append((np.array([[0, 0, 40, 40]]), np.array([2]), np.array([4]), np.array([0.5])))
    first.absent, first.not_exhaustive = first.absent + second.absent, first.not_exhaustive * 2
    metrics = measure(first, iou_types=("bbox",))[1]
    assert metrics["box/APc"] == pytest.approx(ap)
    assert metrics["box/APr"] == pytest.approx(1.0)
    assert math.isnan(metrics["box/APf"]) and "mask/AP" not in metrics


def test_the_limit_is_for_all_classes_together():
    scene = one_image()
    assert measure(scene, max_detections=2)[1]["box/AP"] == pytest.approx(0.5)  # the ant; the bee comes third


def test_regions_can_be_polygons_run_lengths_or_missing():
    scene = without_rules(LvisScene(seed=2, num_images=3))
    polygons = measure(scene)[1]["mask/AP"]

    class Coded(LvisScene):
        def to_coco(self):
            coco = scene.to_coco()
            for annotation in coco["annotations"]:
                mask = polygons_to_bitmask([np.array(annotation["segmentation"][0], dtype=float)], *SIZE)
                column = np.concatenate([[0], np.asarray(mask).T.reshape(-1).astype(int), [0]])
                runs = np.diff(np.flatnonzero(np.diff(column)), prepend=0)
                counts = [*runs.tolist(), SIZE[0] * SIZE[1] - int(runs.sum())]
                annotation["segmentation"] = {"size": list(SIZE), "counts": counts}
            return coco

    coded = Coded()
    assert measure(coded, scene.results())[1]["mask/AP"] == pytest.approx(polygons, abs=1e-12)

    class Bare(LvisScene):
        def to_coco(self):
            coco = scene.to_coco()
            for annotation in coco["annotations"]:
                del annotation["segmentation"]
            return coco

    bare = measure(Bare(), scene.results())[1]
    assert bare["mask/AP"] == 0 and bare["box/AP"] > 0


def test_the_dataset_reads_the_lists_from_its_file(tmp_path):
    scene = LvisScene()
    for image_id in range(1, len(scene.objects) + 1):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / f"{image_id}.png")
    (tmp_path / "lvis.json").write_text(json.dumps(scene.to_coco()), encoding="utf-8")
    dataset = CocoDataset(json=tmp_path / "lvis.json", images=tmp_path, class_names=CLASSES)
    _, metrics = measure(dataset, scene.results())
    assert metrics == pytest.approx(LVIS_API[300], abs=1e-12)


def test_ap_without_detections_is_zero():
    scene = LvisScene()
    nothing = [(i, [{"instances": o[0]["instances"][:0]}]) for i, o in scene.results()]
    metrics = measure(scene, nothing)[1]
    assert metrics["box/AP"] == metrics["mask/AP"] == metrics["mask/APr"] == 0


def test_tables_and_reset():
    evaluator, _ = measure(LvisScene())
    assert isinstance(evaluator, Evaluator)
    console = Console(width=120, record=True, file=io.StringIO())
    for table in evaluator.tables():
        console.print(table)
    text = console.export_text()
    assert all(name in text for name in ("APr", "APf", "mask", "12 images"))
    evaluator.reset()
    with pytest.raises(ValueError, match="no image"):
        evaluator.compute()


def test_invalid_results_are_named():
    scene = LvisScene()
    inputs, outputs = next(scene.results())
    with pytest.raises(ValueError, match="404"):
        measure(scene, [([{"image_id": 404}], outputs)])
    del outputs[0]["instances"].pred_masks
    with pytest.raises(ValueError, match="pred_masks"):
        LvisEvaluator(scene).update(inputs, outputs)

    class Coco(LvisScene):
        def to_coco(self):
            coco = super().to_coco()
            for image in coco["images"]:
                del image["neg_category_ids"]
            return coco

    with pytest.raises(ValueError, match=r"neg_category_ids.*CocoEvaluator"):
        measure(Coco())
    for options in ({"iou_types": ()}, {"iou_types": ("keypoints",)}, {"max_detections": 0}):
        with pytest.raises(ValueError):
            LvisEvaluator(scene, **options)
