"""Measure the peak memory of evaluating masks on photos of 12 megapixels, in a process of its own.

    python benchmarks/mask_memory.py [--images 4] [--detections 100]

The model is a stand-in that returns 28 x 28 masks and boxes, so the figure is that of pasting, encoding and evaluating.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource

import torch
from torch import Tensor, nn

from hydet.data import Metadata
from hydet.engine.callbacks.evaluation import ExampleCollector
from hydet.evaluation import CocoEvaluator, evaluate
from hydet.structures import Boxes, Instances, ROIMasks

HEIGHT, WIDTH = 3000, 4000


class Photos:
    """Ground truth of one object per image; without records, because the model reads no images."""

    metadata = Metadata(thing_classes=("thing",), thing_ids=(1,))

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
    """A model that returns random boxes with full masks."""

    def __init__(self, detections: int) -> None:
        super().__init__()
        self.detections = detections

    def detect_unpasted(self, batched_inputs: list[dict], *, with_losses: bool) -> tuple[dict, list[dict]]:
        """Return one result per image."""
        n = self.detections
        corners = torch.rand(n, 2) * torch.tensor([WIDTH / 2, HEIGHT / 2])
        boxes = torch.cat([corners, corners + torch.tensor([WIDTH / 3, HEIGHT / 3])], dim=1)
        fields = {"scores": torch.rand(n), "pred_classes": torch.zeros(n, dtype=torch.int64)}
        masks = ROIMasks(torch.full((n, 28, 28), 0.9))
        instances = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(boxes), pred_masks=masks, **fields)
        return {}, [{"instances": instances} for _ in batched_inputs]


def measure(num_images: int, detections: int) -> tuple[float, float]:
    """Return the peak memory in GB of this process before and after an evaluation."""
    before = _peak()
    loader = [[{"image_id": i, "height": HEIGHT, "width": WIDTH}] for i in range(num_images)]
    evaluators = [CocoEvaluator(Photos(num_images)), ExampleCollector(8)]
    evaluate(StandIn(detections), loader, evaluators, progress=False)
    return before, _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--detections", type=int, default=100)
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, after = pool.apply(measure, (arguments.images, arguments.detections))
    print(f"{arguments.images} images of {WIDTH} x {HEIGHT}, {arguments.detections} detections each")
    print(f"peak memory: {before:.2f} GB after import, {after:.2f} GB after the evaluation")


if __name__ == "__main__":
    main()
