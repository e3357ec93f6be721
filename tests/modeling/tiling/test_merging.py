import torch

from hydet.modeling.tiling.grid import Tile
from hydet.modeling.tiling.merging import (
    merge_instances,
    merge_proposals,
    move_instances,
    move_proposals,
)
from hydet.structures import Boxes, Instances, ROIMasks

SIZE = (100, 180)
TILES = [Tile(0, 0, 100, 100), Tile(80, 0, 180, 100)]


def detected(boxes, scores, classes=None, **fields):
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor(boxes).view(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes if classes is not None else [0] * len(scores), dtype=torch.int64),
        **fields,
    )


def merge(*detections, topk=-1):
    moved = [move_instances(d, tile, SIZE) for d, tile in zip(detections, TILES, strict=True)]
    return merge_instances(moved, TILES, nms_thresh=0.5, match_thresh=0.5, topk=topk)


def test_the_complete_detection_wins_over_a_part_of_higher_score():
    merged = merge(detected([[85.0, 20, 100, 60]], [0.9]), detected([[5.0, 20, 40, 60]], [0.6]))
    assert merged.pred_boxes.tensor.tolist() == [[85, 20, 120, 60]]
    assert merged.scores.tolist() == torch.tensor([0.9]).tolist()
    assert merged.image_size == SIZE


def test_an_object_that_two_tiles_see_whole_appears_once():
    merged = merge(detected([[82.0, 20, 96, 60]], [0.9]), detected([[2.0, 20, 16, 60]], [0.95]))
    assert merged.pred_boxes.tensor.tolist() == [[82, 20, 96, 60]]
    assert len(merge(detected([[82.0, 20, 96, 60]], [0.9]), detected([[2.0, 20, 16, 60]], [0.9], [1]))) == 2


def test_parts_are_joined_and_others_stay():
    merged = merge(
        detected([[30.0, 20, 100, 60], [1, 1, 9, 9]], [0.9, 0.2]),
        detected([[0.0, 20, 70, 60]], [0.8]),
    )
    assert merged.pred_boxes.tensor.tolist() == [[30, 20, 150, 60], [1, 1, 9, 9]]
    assert len(merge(detected([[1.0, 1, 9, 9], [20, 1, 29, 9]], [0.2, 0.3]), detected([], []), topk=1)) == 1


def test_no_detections():
    merged = merge(detected([], []), detected([], []))
    assert len(merged) == 0 and merged.image_size == SIZE


def test_pasted_masks_become_small_and_keypoints_move():
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 20:60, 10:50] = True
    part = detected(
        [[10.0, 20, 50, 60]], [0.9], pred_masks=mask, pred_keypoints=torch.tensor([[[12.0, 30, 0.5]]])
    )
    moved = move_instances(part, TILES[1], SIZE)
    assert isinstance(moved.pred_masks, ROIMasks) and moved.pred_keypoints.tolist() == [[[92, 30, 0.5]]]
    pasted = moved.pred_masks.to_bitmasks(moved.pred_boxes, *SIZE).tensor[0]
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[20:60, 90:130] = True
    assert torch.equal(pasted, expected)


def test_proposals_are_suppressed_together():
    parts = [
        Instances(
            (100, 100), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=torch.tensor(logits)
        )
        for boxes, logits in (
            ([[82.0, 20, 96, 60]], [-1.0]),
            ([[2.0, 20, 16, 60], [50, 50, 60, 60]], [-0.5, -3.0]),
        )
    ]
    moved = [move_proposals(part, tile, SIZE) for part, tile in zip(parts, TILES, strict=True)]
    merged = merge_proposals(moved, nms_thresh=0.7, topk=-1)
    assert merged.proposal_boxes.tensor.tolist() == [[82, 20, 96, 60], [130, 50, 140, 60]]
    assert merged.objectness_logits.tolist() == [-0.5, -3.0]
