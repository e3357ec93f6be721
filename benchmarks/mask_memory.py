"""Measure the peak memory of masks on photos of 12 megapixels: in evaluate, predict and panoptic evaluation.

    python benchmarks/mask_memory.py [--tasks evaluate boundary predict panoptic] [--images 1 2] [--output FILE]

Each measurement has a process of its own. The model is a stand-in that returns boxes, 28 x 28 masks and semantic scores
at a quarter of the resolution, so the figure is that of pasting, encoding, drawing and evaluating. Pasting and encoding
take about 0.2 seconds per detection, so a few photos are enough. Runs on Linux and macOS.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import device_name
from torch import Tensor, nn

from hydet.data import ImageReader, InputMapper, Metadata
from hydet.engine.callbacks.evaluation import ExampleCollector
from hydet.evaluation import CocoEvaluator, PanopticEvaluator, SemanticEvaluator, evaluate
from hydet.modeling import combine_semantic_and_instance_outputs
from hydet.runs.prediction import predict_images
from hydet.runs.result_files import ResultFiles
from hydet.runs.sources import open_source
from hydet.structures import Boxes, Instances, ROIMasks, SemanticScores
from hydet.visualization import draw_predictions, save_png

HEIGHT, WIDTH = 3000, 4000
NUM_STUFF = 54  # semantic labels, as many as COCO's panoptic models have
TASKS = {
    "evaluate": "boxes and masks",
    "boundary": "boxes, masks and boundary IoU",
    "predict": "masks: results and drawn images",
    "predict_panoptic": "panoptic: results and drawn images",
    "panoptic": "masks, semantic labels and panoptic segments",
}


class Photos:
    """Ground truth of one object per image; without records, because the model reads no images."""

    metadata = Metadata(
        thing_classes=("thing",),
        thing_ids=(1,),
        stuff_classes=tuple(f"stuff {i}" for i in range(NUM_STUFF)),
        stuff_ids=tuple(range(NUM_STUFF)),
    )

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int, /) -> Tensor:
        raise IndexError(index)

    def to_coco(self) -> dict[str, object]:
        """Return the ground truth."""
        polygon = [[100, 100, 900, 100, 900, 700, 100, 700]]
        annotation = {"category_id": 1, "bbox": [100, 100, 800, 600], "area": 480000, "iscrowd": 0}
        return {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(self.num_images)],
            "annotations": [
                {**annotation, "id": i + 1, "image_id": i, "segmentation": polygon}
                for i in range(self.num_images)
            ],
            "categories": [{"id": 1, "name": "thing"}],
        }


class StandIn(nn.Module):
    """A model that returns random boxes with full masks and, for panoptic segmentation, semantic scores."""

    def __init__(self, detections: int, *, panoptic: bool) -> None:
        super().__init__()
        self.detections = detections
        self.panoptic = panoptic

    def detect_unpasted(self, batched_inputs: list[dict], *, with_losses: bool) -> tuple[dict, list[dict]]:
        """Return one result per image."""
        return {}, [self._detect() for _ in batched_inputs]

    def _detect(self) -> dict:
        n = self.detections
        corners = torch.rand(n, 2) * torch.tensor([WIDTH / 2, HEIGHT / 2])
        boxes = torch.cat([corners, corners + torch.tensor([WIDTH / 3, HEIGHT / 3])], dim=1)
        fields = {"scores": 0.5 + 0.5 * torch.rand(n), "pred_classes": torch.zeros(n, dtype=torch.int64)}
        masks = ROIMasks(torch.full((n, 28, 28), 0.9))
        instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes), pred_masks=masks, **fields)
        if not self.panoptic:
            return {"instances": instances}
        # The steps of PanopticFPN after its network.
        sem_seg = SemanticScores(torch.rand(NUM_STUFF, HEIGHT // 4, WIDTH // 4), (HEIGHT, WIDTH))
        segments = combine_semantic_and_instance_outputs(instances, sem_seg.labels(), 0.5, 4096, 0.5)
        return {"instances": instances, "sem_seg": sem_seg, "panoptic_seg": segments}


def measure(task: str, num_images: int, detections: int) -> tuple[float, float, float]:
    """Return the peak memory in GB of this process before and after a task, and the seconds it took."""
    torch.manual_seed(0)
    before, started = _peak(), time.monotonic()
    model = StandIn(detections, panoptic="panoptic" in task)
    if task.startswith("predict"):
        with tempfile.TemporaryDirectory() as folder:
            _predict(model, num_images, Path(folder))
    else:
        _evaluate(model, task, num_images)
    return before, _peak(), time.monotonic() - started


def _evaluate(model: StandIn, task: str, num_images: int) -> None:
    photos = Photos(num_images)
    evaluators = [CocoEvaluator(photos, boundary=task == "boundary"), ExampleCollector(8)]
    ground_truth = {}
    if task == "panoptic":
        evaluators += [SemanticEvaluator(photos), PanopticEvaluator(photos)]
        ids = torch.ones(HEIGHT, WIDTH, dtype=torch.int32)
        ground_truth = {
            "sem_seg": torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8),
            "panoptic_seg": ids,
            "segments_info": [{"id": 1, "category_id": 0, "isthing": True}],
        }
    entry = {"height": HEIGHT, "width": WIDTH, "ground_truth": ground_truth}
    loader = [[{**entry, "image_id": i}] for i in range(num_images)]
    evaluate(model, loader, evaluators, progress=False)


def _predict(model: StandIn, num_images: int, folder: Path) -> None:
    """Do what the predict command does for each photo."""
    files = [
        save_png(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), folder / f"{i}.png")
        for i in range(num_images)
    ]
    metadata = Photos(num_images).metadata
    results = ResultFiles(folder / "results", metadata, journal=True)
    images = open_source(files, read=ImageReader())
    for prediction in predict_images(model, InputMapper(training=False, mask_format=None), images):
        drawing = draw_predictions(prediction.record.image, prediction.output, metadata)
        save_png(drawing, folder / "pictures" / Path(prediction.record.file_name).name)
        results.update([prediction.model_input], [prediction.output])
    results.compute()


def _peak() -> float:
    try:
        import resource  # absent on Windows
    except ImportError:
        raise SystemExit(
            "mask_memory: the peak memory of a process is measured on Linux and macOS only"
        ) from None
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def format_table(rows: list[tuple[str, int, int, float, float, float]]) -> str:
    """Return the Markdown report of rows of task, images, detections, two peaks in GB and seconds."""
    lines = [
        "# Peak memory of masks on large photos",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {device_name('cpu')}, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}.",
        f"Photos of {WIDTH} x {HEIGHT}; a stand-in model returns boxes with 28 x 28 masks and, for panoptic segmentation, "
        f"the scores of {NUM_STUFF} semantic labels at a quarter of the resolution. Each row is a process of its own.",
        "",
        "| task | photos | detections per photo | peak after import (GB) | peak after the task (GB) | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {task} ({TASKS[task]}) | {i} | {d} | {before:.2f} | {after:.2f} | {s:.0f} |"
            for task, i, d, before, after, s in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it to a file on request."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument(
        "--measure", action="store_true", help="measure in this process and print the numbers"
    )
    arguments = parser.parse_args()
    if arguments.measure:
        print(*measure(arguments.tasks[0], arguments.images[0], arguments.detections))
        return
    rows = []
    for task in arguments.tasks:
        for images in arguments.images:
            # The peak of a process never falls, so each measurement has its own. A failure ends the script.
            command = [sys.executable, __file__, "--measure", "--tasks", task, "--images", str(images)]
            command += ["--detections", str(arguments.detections)]
            numbers = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            ).stdout.split()
            before, after, seconds = map(float, numbers)
            rows.append((task, images, arguments.detections, before, after, seconds))
    table = format_table(rows)
    print(table)
    if arguments.output:
        arguments.output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
