"""Write the results of a model as files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from rich.table import Table
from torch import Tensor

from hydet.data import Metadata, Proposals, write_proposals
from hydet.data.coco.panoptic import ids_to_rgb
from hydet.data.coco.writer import write_png
from hydet.data.datasets.file_ids import FileId, FileIds
from hydet.distributed import gather_on_main, is_main_process
from hydet.evaluation import results_to_coco_json
from hydet.evaluation.coco_results import CocoResult
from hydet.files import write_atomically
from hydet.structures import ModelInput, ModelOutput, SegmentInfo, SemanticScores, semantic_labels

from .result_journal import ResultJournal

__all__ = ["ResultFiles"]


class _Segment(TypedDict):
    """A segment in COCO's panoptic format, with its score."""

    id: int
    category_id: FileId
    area: int
    score: NotRequired[float]


class _PanopticEntry(TypedDict):
    image_id: FileId
    file_name: str
    segments_info: list[_Segment]


# A detection in COCO's results format, with the ids of the file.
_Detection = dict[str, object]


class _Collected(NamedTuple):
    """The results of one process."""

    detections: list[_Detection]
    panoptic: list[_PanopticEntry]
    label_maps: list[str]
    proposals: list[tuple[int, Proposals]]

    def extend(self, other: _Collected) -> None:
        """Add the results of other images."""
        self.detections.extend(other.detections)
        self.panoptic.extend(other.panoptic)
        self.label_maps.extend(other.label_maps)
        self.proposals.extend(other.proposals)


class ResultFiles:
    """An evaluator without metrics that writes the results as files.

    The files are::

        folder/results.json      instances: COCO's results format
        folder/panoptic.json     segments: COCO's panoptic format, with ids as colors in folder/panoptic/*.png
        folder/semantic/*.png    the label of every pixel
        folder/proposals.npz     proposals: the format of hydet.data.WithProposals

    ``update`` writes the maps; ``compute`` writes each of the other files in one step.

    Args:
        folder: created with the first file.
        metadata: metadata of the data that the results are for; the files contain its category ids.
        journal: let ``update`` also append the results of each image to ``folder/results.jsonl``, one line per image,
            which ``compute`` removes. The file remains if the process is killed before.
        file_ids: ids in the annotation file that differ from those of the inputs; the files have the former, except
            ``proposals.npz``, which holds integers.

    Attributes:
        written: one line per kind of result, such as "12 detections: folder/results.json"; set by ``compute`` on the
            main process.
    """

    def __init__(
        self,
        folder: str | Path,
        metadata: Metadata,
        *,
        journal: bool = False,
        file_ids: FileIds | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.metadata = metadata
        self.file_ids = file_ids or FileIds()
        self._journal = ResultJournal(self.folder / "results.jsonl") if journal else None
        self.reset()

    def reset(self) -> None:
        """Forget all results; files that were written remain."""
        self.written: list[str] = []
        self._collected = _Collected([], [], [], [])

    takes_roi_masks = True

    def update(self, inputs: Sequence[ModelInput], outputs: Sequence[ModelOutput]) -> None:
        """Add the results of one batch; inputs have ``image_id`` and ``file_name``."""
        for entry, output in zip(inputs, outputs, strict=True):
            results = self._collect(entry, output)
            self._collected.extend(results)
            if self._journal is not None:
                self._journal.append(_journal_line(entry, results))

    def _collect(self, entry: ModelInput, output: ModelOutput) -> _Collected:
        """Return the results of one image; write its maps."""
        results = _Collected([], [], [], [])
        image_id = entry["image_id"]
        name = f"{Path(str(entry.get('file_name', 'image'))).stem}_{image_id}.png"
        if "instances" in output:
            for result in results_to_coco_json([entry], [output], self.metadata):
                results.detections.append(self._with_file_ids(result))
        if "panoptic_seg" in output:
            results.panoptic.append(self._write_segments(image_id, *output["panoptic_seg"], name))
        elif "sem_seg" in output:
            write_png(_labels(output["sem_seg"]), self.folder / "semantic" / name)
            results.label_maps.append(name)
        if "proposals" in output:
            instances = output["proposals"].to("cpu")
            boxes = instances.proposal_boxes.tensor
            if boxes.shape[1] == 4:  # the file format has no column for angles
                proposals = Proposals(boxes=boxes, objectness_logits=instances.objectness_logits)
                results.proposals.append((image_id, proposals))
        return results

    def _with_file_ids(self, result: CocoResult) -> _Detection:
        detection: _Detection = {**result, "category_id": self.file_ids.category(result["category_id"])}
        if result["image_id"] is not None:
            detection["image_id"] = self.file_ids.image(result["image_id"])
        return detection

    def compute(self) -> dict[str, float]:
        """Write the remaining files on the main process; return no metrics."""
        parts: list[_Collected] = gather_on_main(self._collected)
        if not is_main_process():
            return {}
        detections = [result for part in parts for result in part.detections]
        panoptic = [entry for part in parts for entry in part.panoptic]
        num_label_maps = sum(len(part.label_maps) for part in parts)
        proposals = [pair for part in parts for pair in part.proposals]
        if panoptic:
            self._write_json({"annotations": panoptic}, "panoptic.json")
            self.written.append(f"panoptic maps: {self.folder / 'panoptic.json'}")
        if num_label_maps:
            self.written.append(f"{num_label_maps} label maps: {self.folder / 'semantic'}")
        if proposals:
            write_proposals(self.folder / "proposals.npz", proposals)
            self.written.append(f"proposals: {self.folder / 'proposals.npz'}")
        if detections or not (num_label_maps or proposals):
            self._write_json(detections, "results.json")
            self.written.append(f"{len(detections)} detections: {self.folder / 'results.json'}")
        if self._journal is not None:
            self._journal.remove()
        return {}

    def tables(self) -> list[Table]:
        """Return no tables."""
        return []

    def _write_json(self, content: object, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / name, json.dumps(content))

    def _write_segments(
        self, image_id: int, id_map: Tensor, segments: Sequence[SegmentInfo], name: str
    ) -> _PanopticEntry:
        ids = id_map.cpu().numpy()
        write_png(ids_to_rgb(ids), self.folder / "panoptic" / name)
        areas = np.bincount(ids.reshape(-1), minlength=1 + max((s["id"] for s in segments), default=0))
        entries: list[_Segment] = []
        for segment in segments:
            if not areas[segment["id"]]:  # hidden by better ones; tools refuse a segment that has no pixels
                continue
            is_thing = segment["isthing"]
            category_ids = self.metadata.thing_ids if is_thing else self.metadata.stuff_ids
            category_id = int(category_ids[segment["category_id"]])
            entry: _Segment = {
                "id": segment["id"],
                "category_id": self.file_ids.category(category_id) if is_thing else category_id,
                "area": int(areas[segment["id"]]),
            }
            if "score" in segment:
                entry["score"] = segment["score"]
            entries.append(entry)
        return {"image_id": self.file_ids.image(image_id), "file_name": name, "segments_info": entries}


def _journal_line(entry: ModelInput, results: _Collected) -> dict[str, object]:
    """Return the image and its results as JSON."""
    line: dict[str, object] = {
        "image_id": entry["image_id"],
        "file_name": entry.get("file_name"),
        "height": entry.get("height"),
        "width": entry.get("width"),
        "detections": results.detections,
    }
    if results.panoptic:
        line["panoptic"] = results.panoptic[0]
    if results.label_maps:
        line["label_map"] = results.label_maps[0]
    for _, proposals in results.proposals:
        line["proposal_boxes"] = proposals.boxes.tolist()
        line["objectness_logits"] = proposals.objectness_logits.tolist()
    return line


def _labels(logits: Tensor | SemanticScores) -> np.ndarray:
    """Return the ``(H, W)`` labels of the largest logits; uint8 if they fit, otherwise uint16."""
    labels = semantic_labels(logits).cpu().numpy()
    return labels.astype(np.uint8 if logits.shape[0] <= 256 else np.uint16)
