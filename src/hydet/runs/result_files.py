"""A model's results as files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from hydet.data import Proposals, write_proposals
from hydet.data.coco.panoptic import ids_to_rgb
from hydet.distributed import gather_on_main, is_main_process
from hydet.engine.atomic_writes import write_atomically
from hydet.evaluation import results_to_coco_json

__all__ = ["ResultFiles"]


class ResultFiles:
    """An evaluator that measures nothing and writes everything it sees::

        folder/results.json      instances: COCO's results format
        folder/panoptic.json     segments: COCO's panoptic format, with ids as colours in folder/panoptic/*.png
        folder/semantic/*.png    the label of every pixel
        folder/proposals.npz     proposals: what hydet.data.WithProposals reads

    Maps are written as they come, the other files by ``compute``, each at once.

    Args:
        folder: is made when there is something to write.
        metadata: of the data that the model was trained on; its ids stand in the files.

    Attributes:
        written: what there is, as "12 detections: folder/results.json"; filled by ``compute`` on the main process.
    """

    def __init__(self, folder: str | Path, metadata: Any) -> None:
        self.folder = Path(folder)
        self.metadata = metadata
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; files stay."""
        self.written: list[str] = []
        self._detections: list[dict[str, Any]] = []
        self._panoptic: list[dict[str, Any]] = []
        self._label_maps = 0
        self._proposals: list[tuple[int, Proposals]] = []

    def update(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take the results of one batch; inputs have ``image_id`` and ``file_name``."""
        for entry, output in zip(inputs, outputs, strict=True):
            image_id = entry["image_id"]
            name = f"{Path(str(entry.get('file_name', 'image'))).stem}_{image_id}.png"
            if "instances" in output:
                self._detections += results_to_coco_json([entry], [output], self.metadata)
            if "panoptic_seg" in output:
                self._panoptic.append(self._segments(image_id, output["panoptic_seg"], name))
            elif "sem_seg" in output:
                self._label_maps += 1
                _write_png(_labels(output["sem_seg"]), self.folder / "semantic" / name)
            if "proposals" in output:
                self._keep_proposals(image_id, output["proposals"].to("cpu"))

    def compute(self) -> dict[str, float]:
        """Write what is not written yet; gives no metrics."""
        parts = gather_on_main((self._detections, self._panoptic, self._label_maps, self._proposals))
        if not is_main_process():
            return {}
        detections = [d for part in parts for d in part[0]]
        panoptic = [p for part in parts for p in part[1]]
        label_maps = sum(part[2] for part in parts)
        proposals = [pair for part in parts for pair in part[3]]
        if panoptic:
            self._write_json({"annotations": panoptic}, "panoptic.json")
            self.written.append(f"panoptic maps: {self.folder / 'panoptic.json'}")
        if label_maps:
            self.written.append(f"{label_maps} label maps: {self.folder / 'semantic'}")
        if proposals:
            write_proposals(self.folder / "proposals.npz", proposals)
            self.written.append(f"proposals: {self.folder / 'proposals.npz'}")
        if detections or not (label_maps or proposals):
            self._write_json(detections, "results.json")
            self.written.append(f"{len(detections)} detections: {self.folder / 'results.json'}")
        return {}

    def tables(self) -> list[Any]:
        """Nothing."""
        return []

    def _keep_proposals(self, image_id: Any, found: Any) -> None:
        boxes = found.proposal_boxes.tensor
        if boxes.shape[1] == 4:  # the file has no place for angles
            proposals = Proposals(boxes=boxes, objectness_logits=found.objectness_logits)
            self._proposals.append((image_id, proposals))

    def _write_json(self, content: Any, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, json.dumps(content))

    def _segments(
        self, image_id: Any, panoptic_seg: tuple[Tensor, list[dict[str, Any]]], name: str
    ) -> dict[str, Any]:
        ids = panoptic_seg[0].cpu().numpy()
        _write_png(ids_to_rgb(ids), self.folder / "panoptic" / name)
        areas = np.bincount(ids.reshape(-1))
        segments = []
        for segment in panoptic_seg[1]:
            numbers = self.metadata.thing_ids if segment["isthing"] else self.metadata.stuff_ids
            kept = {"id": segment["id"], "category_id": int(numbers[segment["category_id"]])}
            score = {"score": segment["score"]} if "score" in segment else {}
            segments.append({**kept, **score, "area": int(areas[segment["id"]])})
        return {"image_id": image_id, "file_name": name, "segments_info": segments}


def _labels(logits: Tensor) -> np.ndarray:
    labels = logits.argmax(dim=0).cpu().numpy()
    return labels.astype(np.uint8 if logits.shape[0] <= 256 else np.uint16)


def _write_png(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=3)
