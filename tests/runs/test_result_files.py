"""Files of results."""

import json

import numpy as np
import torch
from PIL import Image

from hydet.data import Metadata, ProposalFile
from hydet.data.datasets.file_ids import FileIds
from hydet.runs.result_files import ResultFiles
from hydet.structures import Boxes, Instances

METADATA = Metadata(
    thing_classes=("a", "b"), thing_ids=(7, 9), stuff_classes=("things", "sky"), stuff_ids=(0, 40)
)


def instances(**fields):
    result = Instances((4, 6))
    for name, value in fields.items():
        setattr(result, name, value)
    return result


def test_detections_have_the_category_ids_of_the_metadata(tmp_path):
    files = ResultFiles(tmp_path / "out", METADATA)
    assert not (tmp_path / "out").exists()
    detections = instances(
        pred_boxes=Boxes(torch.tensor([[0.0, 1.0, 2.0, 3.0]])),
        scores=torch.tensor([0.5]),
        pred_classes=torch.tensor([1]),
    )
    files.update([{"image": torch.zeros(3, 4, 6), "image_id": 3}], [{"instances": detections}])
    assert files.compute() == {} and files.tables() == []
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (result["image_id"], result["category_id"], result["bbox"]) == (3, 9, [0.0, 1.0, 2.0, 2.0])
    assert files.written == [f"1 detections: {tmp_path / 'out' / 'results.json'}"]


def test_panoptic_maps_and_label_maps(tmp_path):
    files = ResultFiles(tmp_path, METADATA)
    ids = torch.zeros(4, 6, dtype=torch.int32)
    ids[:2], ids[2:] = 1, 300
    segments = [
        {"id": 1, "isthing": True, "category_id": 0, "score": 0.25},
        {"id": 300, "isthing": False, "category_id": 1},
    ]
    logits = torch.zeros(2, 4, 6)
    logits[1, 0] = 1
    entries = [{"image": logits, "image_id": i, "file_name": f"dir/x{i}.jpg"} for i in (1, 2)]
    files.update(entries, [{"panoptic_seg": (ids, segments)}, {"sem_seg": logits}])
    files.compute()
    (entry,) = json.loads((tmp_path / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
    assert entry["file_name"] == "x1_1.png"
    assert entry["segments_info"] == [
        {"id": 1, "category_id": 7, "area": 12, "score": 0.25},
        {"id": 300, "category_id": 40, "area": 12},
    ]
    colors = np.asarray(Image.open(tmp_path / "panoptic" / "x1_1.png")).astype(int)
    assert (colors[..., 0] + 256 * colors[..., 1] == ids.numpy()).all()
    labels = np.asarray(Image.open(tmp_path / "semantic" / "x2_2.png"))
    assert labels.dtype == np.uint8 and labels.sum() == 6


def test_proposals_are_readable_and_rotated_ones_are_left_out(tmp_path):
    files = ResultFiles(tmp_path, METADATA)
    for image_id, columns in ((1, 4), (2, 5)):
        proposals = instances(
            proposal_boxes=Boxes(torch.ones(1, 4))
            if columns == 4
            else type("R", (), {"tensor": torch.ones(1, 5), "to": lambda s, d: s, "__len__": lambda s: 1})(),
            objectness_logits=torch.zeros(1),
        )
        files.update([{"image": torch.zeros(3, 4, 6), "image_id": image_id}], [{"proposals": proposals}])
    files.compute()
    assert ProposalFile.read(tmp_path / "proposals.npz").image_ids.tolist() == [1]


def test_the_journal_holds_the_results_of_each_image_until_all_are_written(tmp_path):
    files = ResultFiles(tmp_path, METADATA, journal=True)
    detections = instances(
        pred_boxes=Boxes(torch.tensor([[0.0, 1.0, 2.0, 3.0]])),
        scores=torch.tensor([0.5]),
        pred_classes=torch.tensor([1]),
    )
    proposals = instances(
        proposal_boxes=Boxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]])), objectness_logits=torch.tensor([0.25])
    )
    logits = torch.zeros(2, 4, 6)
    for i, output in enumerate(
        [{"instances": detections}, {"proposals": proposals}, {"sem_seg": logits}], start=1
    ):
        entry = {"image": logits, "image_id": i, "file_name": f"x{i}.jpg", "height": 4, "width": 6}
        files.update([entry], [output])
        lines = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == i  # complete before the next image
    first, second, third = map(json.loads, lines)
    assert (first["image_id"], first["file_name"], first["height"], first["width"]) == (1, "x1.jpg", 4, 6)
    assert [d["category_id"] for d in first["detections"]] == [9]
    assert second["proposal_boxes"] == [[0, 0, 2, 2]] and second["objectness_logits"] == [0.25]
    assert third["label_map"] == "x3_3.png" and third["detections"] == []
    files.compute()
    assert not (tmp_path / "results.jsonl").exists()
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == first["detections"]


def test_a_segment_without_pixels_is_left_out(tmp_path):
    # combine_overlap_thresh=1 keeps instances that better ones hide completely.
    files = ResultFiles(tmp_path, METADATA)
    segments = [{"id": i, "isthing": True, "category_id": 0, "score": 0.9} for i in (1, 2)]
    output = {"panoptic_seg": (torch.ones(2, 3, dtype=torch.int32), segments)}
    files.update([{"image_id": 1, "file_name": "a.png"}], [output])
    files.compute()
    (annotation,) = json.loads((tmp_path / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
    assert [(segment["id"], segment["area"]) for segment in annotation["segments_info"]] == [(1, 6)]


def test_ids_are_those_of_the_annotation_file(tmp_path):
    ids = FileIds(images={1: "img-1", 2: 2**70}, categories={9: "9"})
    files = ResultFiles(tmp_path, METADATA, journal=True, file_ids=ids)
    detections = instances(
        pred_boxes=Boxes(torch.ones(1, 4)), scores=torch.ones(1), pred_classes=torch.tensor([1])
    )
    segments = [{"id": 1, "isthing": True, "category_id": 1, "score": 0.9}]
    for image_id in (1, 2, 3):
        output = {
            "instances": detections,
            "panoptic_seg": (torch.ones(2, 3, dtype=torch.int32), segments),
        }
        files.update([{"image_id": image_id, "file_name": "a.png"}], [output])
    journal = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["detections"][0]["image_id"] for line in journal] == ["img-1", 2**70, 3]
    files.compute()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(r["image_id"], r["category_id"]) for r in results] == [("img-1", "9"), (2**70, "9"), (3, "9")]
    panoptic = json.loads((tmp_path / "panoptic.json").read_text(encoding="utf-8"))["annotations"]
    assert [entry["image_id"] for entry in panoptic] == ["img-1", 2**70, 3]
    assert panoptic[0]["segments_info"][0]["category_id"] == "9"
