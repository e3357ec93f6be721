"""The result of one image."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from hydet.data import Metadata
from hydet.evaluation import results_to_coco_json
from hydet.evaluation.coco_results import CocoResult
from hydet.files import atomic_file
from hydet.structures import (
    BitMasks,
    Instances,
    Keypoints,
    ModelInput,
    ModelOutput,
    ROIMasks,
    SegmentInfo,
    semantic_labels,
)
from hydet.visualization import draw_predictions

from .result_formats import labelme, plain_values, supervision, tables, yolo

if TYPE_CHECKING:
    from pandas import DataFrame
    from supervision import Detections

__all__ = ["DEFAULT_PLOT_THRESHOLD", "Result"]

DEFAULT_PLOT_THRESHOLD = 0.5  # lowest score of drawn objects, as in the command


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The prediction of a model for one image. Tensors are on the CPU, coordinates in pixels of ``image``.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        output: result of the model. Masks and semantic scores of models of hydet are small until they are accessed.
        metadata: names of the classes, and their ids in COCO files.
        name: path or address of the image, or a name such as ``"image 3"``.
        index: position of the image in its source, from 0.
        plot_threshold: lowest score of the objects that :meth:`plot` draws by default.
        time: when a frame of a video is shown, in seconds; None for other images.
    """

    image: Tensor
    output: ModelOutput
    metadata: Metadata
    name: str = ""
    index: int = 0
    plot_threshold: float = DEFAULT_PLOT_THRESHOLD
    time: float | None = None

    @property
    def height(self) -> int:
        """Height of the image in pixels."""
        return int(self.image.shape[1])

    @property
    def width(self) -> int:
        """Width of the image in pixels."""
        return int(self.image.shape[2])

    @property
    def instances(self) -> Instances:
        """The objects or proposals with their fields; without any for models that predict labels of pixels only."""
        objects = self.output.get("instances", self.output.get("proposals"))
        if objects is not None:
            return objects
        nothing = {"pred_boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
        return Instances((self.height, self.width), **nothing, pred_classes=torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def boxes(self) -> Tensor:
        """``(N, 4)`` as (x1, y1, x2, y2), or ``(N, 5)`` as (cx, cy, w, h, degrees counterclockwise)."""
        fields = self.instances.get_fields()
        boxes = fields.get("pred_boxes", fields.get("proposal_boxes"))
        tensor: Tensor = boxes if isinstance(boxes, Tensor) else boxes.tensor  # type: ignore[union-attr]
        return tensor

    @property
    def is_rotated(self) -> bool:
        """True if ``boxes`` are rotated."""
        return self.boxes.shape[1] == 5

    @property
    def scores(self) -> Tensor:
        """``(N,)`` in [0, 1]; objectness logits for models that only propose regions."""
        fields = self.instances.get_fields()
        scores: Tensor = fields["scores"] if "scores" in fields else fields["objectness_logits"]
        return scores

    @property
    def class_ids(self) -> Tensor:
        """``(N,)`` int64 indices of the classes, 0 to K-1; 0 for proposals, which have no class."""
        fields = self.instances.get_fields()
        if "pred_classes" not in fields:
            return torch.zeros(len(self), dtype=torch.int64)
        classes: Tensor = fields["pred_classes"]
        return classes

    @property
    def class_names(self) -> list[str]:
        """Name of the class of each object; ``"proposal"`` for proposals."""
        if not self.instances.has("pred_classes"):
            return ["proposal"] * len(self)
        return [self.metadata.thing_classes[i] for i in self.class_ids.tolist()]

    @property
    def masks(self) -> Tensor | None:
        """``(N, H, W)`` bool, or None. They are pasted into the image at each access, so keep them in a variable."""
        return _pasted(self.instances) if self.instances.has("pred_masks") else None

    def iterate_masks(self) -> Iterator[Tensor]:
        """Yield the ``(H, W)`` bool mask of each object; only one is pasted at a time.

        Raises:
            ValueError: if the model predicts no masks.
        """
        if not self.instances.has("pred_masks"):
            raise ValueError(f"{self.name}: the model predicts no masks")
        for i in range(len(self)):
            (mask,) = _pasted(self.instances[i])
            yield mask

    @property
    def keypoints(self) -> Tensor | None:
        """``(N, P, 3)`` as (x, y, score), or None; ``metadata.keypoint_names`` names them."""
        if not self.instances.has("pred_keypoints"):
            return None
        keypoints = self.instances.pred_keypoints
        tensor: Tensor = keypoints.tensor if isinstance(keypoints, Keypoints) else keypoints
        return tensor

    @property
    def track_ids(self) -> Tensor | None:
        """``(N,)`` int64 numbers of the objects in a video, -1 without a track; None if they are not tracked."""
        return self.instances.track_ids if self.instances.has("track_ids") else None

    @property
    def panoptic(self) -> tuple[Tensor, list[SegmentInfo]] | None:
        """``(H, W)`` int32 map of segment ids and a description of each segment, or None."""
        return self.output.get("panoptic_seg")

    @property
    def semantic(self) -> Tensor | None:
        """``(H, W)`` int64 label of each pixel, or None; ``metadata.stuff_classes`` names them."""
        scores = self.output.get("sem_seg")
        return None if scores is None else semantic_labels(scores)

    def __repr__(self) -> str:
        """Return the name and size of the image and the number of objects per class."""
        parts = [f"{count} {name}" for name, count in Counter(self.class_names).most_common()]
        if self.panoptic is not None:
            parts.append(f"{len(self.panoptic[1])} segments")
        elif "sem_seg" in self.output:
            parts.append("a label per pixel")
        return (
            f"Result({self.name or 'image'}, {self.height} x {self.width}: {', '.join(parts) or 'nothing'})"
        )

    def plot(self, *, score_threshold: float | None = None, **options: Any) -> Image.Image:
        """Draw the result on its image.

        Args:
            score_threshold: drop objects with a lower score; by default 0.5, or nothing if ``predict`` was given a
                threshold.
            options: further arguments of :func:`hydet.visualization.draw_predictions`, such as ``labels=False``.

        Returns:
            The image, of at least ``min_side=320`` pixels on its longer side.
        """
        drawing = self.draw(score_threshold=score_threshold, **options)
        return Image.fromarray(drawing.permute(1, 2, 0).contiguous().numpy())

    def draw(self, *, score_threshold: float | None = None, **options: Any) -> Tensor:
        """Return the drawing as ``(3, H, W)`` uint8 RGB; see :meth:`plot`."""
        threshold = self.plot_threshold if score_threshold is None else score_threshold
        return draw_predictions(self.image, self.output, self.metadata, score_threshold=threshold, **options)

    def show(self, **options: Any) -> None:
        """Show the drawing in a notebook, or in a window elsewhere.

        Args:
            options: see :meth:`plot`.
        """
        drawing = self.plot(**options)
        if _is_notebook():
            from IPython.display import display

            display(drawing)
        else:
            drawing.show(title=self.name)

    def _repr_png_(self) -> bytes:
        """Return the drawing as PNG for notebooks."""
        stream = io.BytesIO()
        self.plot().save(stream, format="PNG")
        return stream.getvalue()

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the drawing as an image file.

        Args:
            path: path of the file, whose ending selects the format (``.png``, ``.jpg``, ``.webp``); missing folders are
                created.
            options: see :meth:`plot`.

        Returns:
            ``path``.

        Raises:
            ValueError: if Pillow writes no format with this ending.
            WriteError: if the file cannot be written.
        """
        path = Path(path)
        Image.init()
        file_format = Image.EXTENSION.get(path.suffix.lower())
        if file_format not in Image.SAVE:
            raise ValueError(f"{path}: an image file ends in .png, .jpg or .webp, not in {path.suffix!r}")
        drawing = self.plot(**options)
        with atomic_file(path, flush=False) as unfinished:
            drawing.save(unfinished, format=file_format)
        return path

    @property
    def entry(self) -> ModelInput:
        """The image as an evaluator takes it: pixels, size, name and ``image_id``, which is ``index + 1``."""
        return {
            "image": self.image,
            "height": self.height,
            "width": self.width,
            "file_name": self.name,
            "image_id": self.index + 1,
        }

    def check_classes(self, caller: str) -> None:
        """Check that the objects have classes.

        Args:
            caller: name of the method that needs them, for the message.

        Raises:
            ValueError: if the model predicts only proposals, or labels of pixels.
        """
        if "instances" not in self.output:
            raise ValueError(
                f"{caller} needs objects with classes; the model predicts {', '.join(self.output) or 'nothing'}"
            )

    def to_coco(self, image_id: int | None = None) -> list[CocoResult]:
        """Return the objects in COCO's results format, for ``json.dump`` and ``COCO.loadRes``.

        Args:
            image_id: id of the image in the annotation file; by default ``index + 1``, as in the files of the command.

        Raises:
            ValueError: if the model predicts no objects with classes.
        """
        self.check_classes("to_coco")
        entry = self.entry
        if image_id is not None:
            entry["image_id"] = image_id
        return results_to_coco_json([entry], [self.output], self.metadata)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts, ready for ``json.dump``.

        Masks, segments and semantic labels are run-length codes of COCO. See
        :func:`hydet.runs.result_formats.plain_values.to_dict` for the keys.
        """
        return plain_values.to_dict(self)

    def to_pandas(self) -> DataFrame:
        """Return a table with one row per object: image, class, score and box. Needs ``hydet[pandas]``."""
        return tables.to_pandas(self)

    def to_supervision(self) -> Detections:
        """Return ``supervision.Detections``. Needs ``hydet[supervision]``."""
        return supervision.to_supervision(self)

    def to_labelme(self, path: str | Path | None = None) -> dict[str, Any]:
        """Return the content of a labelme file: polygons, rectangles and points to correct by hand.

        Args:
            path: also write it to this file, usually the path of the image with the ending ``.json``.
        """
        return labelme.to_labelme(self, path)

    def to_yolo(self, path: str | Path | None = None) -> str:
        """Return the content of a YOLO label file: one line per object, without its score.

        A line has a box; or the polygon of a mask; or a box and keypoints; or the four corners of a rotated box.

        Args:
            path: also write it to this file, such as ``labels/photo.txt``.
        """
        return yolo.to_yolo(self, path)


def _pasted(instances: Instances) -> Tensor:
    """Return the ``(N, H, W)`` bool masks of instances."""
    masks = instances.pred_masks
    if isinstance(masks, ROIMasks):
        masks = masks.to_bitmasks(instances.pred_boxes, *instances.image_size)
    bitmaps: Tensor = masks.tensor if isinstance(masks, BitMasks) else masks
    return bitmaps > 0.5 if bitmaps.is_floating_point() else bitmaps.bool()


def _is_notebook() -> bool:
    """Return True in a notebook, where IPython can show images."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return "IPKernelApp" in getattr(get_ipython(), "config", {})
