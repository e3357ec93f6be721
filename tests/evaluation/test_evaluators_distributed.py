import pickle

import pytest
import torch

from hydet.data import ShapesDataset
from hydet.distributed import collectives
from hydet.evaluation import (
    CocoEvaluator,
    LvisEvaluator,
    PanopticEvaluator,
    ProposalEvaluator,
    RotatedCocoEvaluator,
    SemanticEvaluator,
)
from hydet.structures import Boxes, Instances, RotatedBoxes


class FederatedShapes(ShapesDataset):
    def to_coco(self):
        coco = super().to_coco()
        for image in coco["images"]:
            image["neg_category_ids"] = list(self.metadata.thing_ids)
        return coco


DATASET = FederatedShapes(num_images=6, image_size=(64, 64), crowd_fraction=0.5)
NUM_LABELS = len(DATASET.metadata.stuff_classes)


def perfect_batches(rotated=False):
    """Yield inputs and perfect results per image; crowds are no detections."""
    for i in range(len(DATASET)):
        record = DATASET[i]
        real = ~record.iscrowd
        n = int(real.sum())
        boxes = RotatedBoxes(record.rotated_boxes[real]) if rotated else Boxes(record.boxes[real])
        size = (record.height, record.width)
        ground_truth = {
            "sem_seg": record.sem_seg,
            "panoptic_seg": record.panoptic_seg,
            "segments_info": record.segments_info,
        }
        entry = {"image_id": record.image_id, "file_name": record.file_name, "ground_truth": ground_truth}
        labels = record.sem_seg.long().clamp(max=NUM_LABELS - 1)  # any label where the ground truth has none
        segments = [s for s in record.segments_info if not s["iscrowd"]]
        ids = record.panoptic_seg.clone()
        ids[torch.isin(ids, torch.tensor([s["id"] for s in segments], dtype=ids.dtype), invert=True)] = 0
        output = {
            "instances": Instances(
                size,
                pred_boxes=boxes,
                scores=torch.ones(n),
                pred_classes=record.classes[real],
                pred_masks=record.bitmasks()[real],
            ),
            "proposals": Instances(size, proposal_boxes=boxes, objectness_logits=torch.ones(n)),
            "sem_seg": torch.nn.functional.one_hot(labels, NUM_LABELS).permute(2, 0, 1).float(),
            "panoptic_seg": (ids, segments),
        }
        yield [entry], [output]


EVALUATORS = [
    (CocoEvaluator, "box/AP"),
    (LvisEvaluator, "mask/AP"),
    (PanopticEvaluator, "panoptic/PQ"),
    (ProposalEvaluator, "proposals/AR100"),
    (RotatedCocoEvaluator, "rotated/AP"),
    (SemanticEvaluator, "semantic/mIoU"),
]


@pytest.mark.parametrize(("make", "name"), EVALUATORS)
def test_perfect_results_score_one_on_any_number_of_processes(make, name, monkeypatch):
    batches = list(perfect_batches(rotated=make is RotatedCocoEvaluator))
    alone, first, second = make(DATASET), make(DATASET), make(DATASET)
    for i, batch in enumerate(batches):
        alone.update(*batch)
        (first if i < 2 else second).update(*batch)
    whole = alone.compute()
    sent = []
    with monkeypatch.context() as patch:
        patch.setattr(collectives, "gather_on_main", lambda value: sent.append(value) or [value])
        second.compute()
    others = pickle.loads(pickle.dumps(sent))
    monkeypatch.setattr(collectives, "gather_on_main", lambda value: [value, *others])
    assert first.compute() == pytest.approx(whole, nan_ok=True)
    assert whole[name] == pytest.approx(1.0, abs=1e-6)


def test_an_error_on_the_main_process_reaches_all_processes(monkeypatch):
    messages = []
    monkeypatch.setattr(collectives, "broadcast_from_main", lambda value: messages.append(value) or value)
    with pytest.raises(ValueError, match="no image"):
        SemanticEvaluator(DATASET).compute()
    assert isinstance(messages[0], ValueError)


def test_other_processes_return_the_result_of_the_main_process(monkeypatch):
    monkeypatch.setattr(collectives, "gather_on_main", lambda value: [])
    monkeypatch.setattr(collectives, "is_main_process", lambda: False)
    monkeypatch.setattr(collectives, "broadcast_from_main", lambda value: {"from": "main"})
    assert CocoEvaluator(DATASET).compute() == {"from": "main"}
    monkeypatch.setattr(
        collectives, "broadcast_from_main", lambda value: ValueError("error of the main process")
    )
    with pytest.raises(ValueError, match="error of the main process"):
        CocoEvaluator(DATASET).compute()
