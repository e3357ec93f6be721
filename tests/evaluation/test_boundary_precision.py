import contextlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hydet.evaluation import CocoEvaluator, LvisEvaluator, results_to_coco_json
from hydet.structures import Boxes, Instances

SIZE = (90, 120)
RATIO = 0.02
IDS = (7, 3)


class BlobDataset:
    """Ellipses of two classes, the last one of each image a crowd, and imprecise detections of them."""

    def __init__(self, num_images, seed=0):
        rng = np.random.default_rng(seed)
        self.metadata = SimpleNamespace(thing_classes=("ant", "bee"), thing_ids=IDS, keypoint_sigmas=())
        self.images, self.annotations, self.outputs = [], [], []
        for image_id in range(1, num_images + 1):
            lists = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
            self.images.append({"id": image_id, "height": SIZE[0], "width": SIZE[1], **lists})
            masks, classes = [], []
            for i in range(5):
                center, radii = rng.uniform((15, 15), (75, 105)), rng.uniform(5, 40, 2)
                gt_mask, category = ellipse(center, radii), int(rng.integers(2))
                self.annotations.append(
                    {
                        "id": len(self.annotations) + 1,
                        "image_id": image_id,
                        "category_id": IDS[category],
                        "bbox": [0, 0, 10, 10],
                        "area": float(gt_mask.sum()),
                        "segmentation": uncompressed(gt_mask),
                        "iscrowd": int(i == 4),
                    }
                )
                masks += [ellipse(center + rng.normal(0, 1, 2), radii * rng.uniform(0.9, 1.1, 2))] * 2
                classes += [category] * 2
            self.outputs.append(as_instances(masks, classes, rng))

    def to_coco(self):
        categories = [{"id": i, "name": str(i), "frequency": "f"} for i in IDS]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}

    def batches(self):
        for image, instances in zip(self.images, self.outputs):
            yield [{"image_id": image["id"]}], [{"instances": instances}]


def ellipse(center, radii):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1


def as_instances(masks, classes, rng):
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]] * len(masks))),
        scores=torch.tensor(rng.random(len(masks))).float(),
        pred_classes=torch.tensor(classes),
        pred_masks=torch.from_numpy(np.stack(masks)),
    )


def uncompressed(mask):
    """Return a mask as COCO's run lengths, column by column, the first run being of zeros."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *([0] if flat[0] else []), *changes.tolist(), flat.size]
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}


class SlowBoundaryEval(COCOeval):
    """COCO's own matching and averaging on overlaps that are computed pixel by pixel from their definition."""

    def computeIoU(self, image_id, category_id):
        gt, dt = self._gts[image_id, category_id], self._dts[image_id, category_id]
        dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")][:100]
        if not gt and not dt:
            return []
        return np.array([[self.overlap(d, g) for g in gt] for d in dt]).reshape(len(dt), len(gt))

    def overlap(self, d, g):
        a, b = (coco.annToMask(x).astype(bool) for coco, x in ((self.cocoDt, d), (self.cocoGt, g)))
        if g["iscrowd"]:
            return (a & b).sum() / max(a.sum(), 1)
        return min(iou(a, b), iou(slow_boundary(a), slow_boundary(b)))


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def slow_boundary(mask):
    width = max(1, round(RATIO * float(np.hypot(*mask.shape))))
    padded = np.pad(mask, width)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1, 2 * width + 1))
    return mask & ~windows.all(axis=(2, 3))


def slow_metrics(dataset):
    inputs, outputs = zip(*((i[0], o[0]) for i, o in dataset.batches()))
    results = [{**r, "bbox": []} for r in results_to_coco_json(inputs, outputs, dataset.metadata)]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO()
        ground_truth.dataset = dataset.to_coco()
        ground_truth.createIndex()
        run = SlowBoundaryEval(ground_truth, ground_truth.loadRes(results), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(("AP", "AP50", "AP75", "APs", "APm"), run.stats[:5]))  # no object is large


def measure(evaluator, dataset):
    for inputs, outputs in dataset.batches():
        evaluator.update(inputs, outputs)
    return evaluator.compute()


def test_boundary_ap_equals_a_slow_computation():
    dataset = BlobDataset(num_images=3)
    metrics = measure(CocoEvaluator(dataset, boundary=True, per_class_metrics=True), dataset)
    expected = slow_metrics(dataset)
    for name, value in expected.items():
        assert metrics[f"boundary/{name}"] == pytest.approx(value, abs=1e-9), name
    assert 0 < metrics["boundary/AP"] < metrics["mask/AP"]
    assert metrics["boundary/AP"] == pytest.approx(
        (metrics["boundary/AP/ant"] + metrics["boundary/AP/bee"]) / 2
    )


def test_a_wide_boundary_is_the_whole_mask():
    dataset = BlobDataset(num_images=2)
    metrics = measure(CocoEvaluator(dataset, boundary=True, boundary_dilation_ratio=1.0), dataset)
    for name in ("AP", "AP50", "APm", "AR"):
        assert metrics[f"boundary/{name}"] == pytest.approx(metrics[f"mask/{name}"], abs=1e-9)


def test_lvis_has_the_same_boundary_ap_if_every_class_is_annotated_everywhere():
    dataset = BlobDataset(num_images=3)
    for image in dataset.images:
        image["neg_category_ids"] = list(IDS)
    lvis = measure(LvisEvaluator(dataset, boundary=True), dataset)
    coco = measure(CocoEvaluator(dataset, boundary=True), dataset)
    assert lvis["boundary/AP"] == pytest.approx(coco["boundary/AP"], abs=1e-9)
    assert lvis["mask/AP"] == pytest.approx(coco["mask/AP"], abs=1e-9)


@pytest.mark.parametrize("make", [CocoEvaluator, LvisEvaluator])
def test_boundaries_need_masks(make):
    with pytest.raises(ValueError, match="boundary=True needs masks"):
        make(BlobDataset(num_images=1), iou_types=("bbox",), boundary=True)
    with pytest.raises(ValueError, match="boundary_dilation_ratio"):
        make(BlobDataset(num_images=1), boundary=True, boundary_dilation_ratio=0)
