import torch

from hydet.modeling.selection.pooled import select_pooled


def select(boxes, scores, classes, topk=-1, thresh=0.1):
    return select_pooled(
        torch.tensor(boxes),
        torch.tensor(scores),
        torch.tensor(classes),
        score_thresh=thresh,
        nms_thresh=0.5,
        topk=topk,
    ).tolist()


def test_boxes_are_suppressed_within_each_class_and_ordered_by_score():
    box = [10.0, 10, 30, 30]
    assert select([box, box, box], [0.5, 0.9, 0.7], [0, 0, 1]) == [1, 2]
    assert select([box, box, box], [0.5, 0.9, 0.7], [0, 0, 1], topk=1) == [1]


def test_low_and_invalid_scores_and_boxes_are_dropped():
    boxes = [[0.0, 0, 1, 1], [2, 0, 3, 1], [float("nan"), 0, 1, 1], [4, 0, 5, 1]]
    assert select(boxes, [0.1, 0.2, 0.9, float("nan")], [0, 0, 0, 0]) == [1]
    assert select(boxes, [-5.0, 2.0, 1.0, -1.0], [0, 0, 0, 0], thresh=-torch.inf) == [1, 3, 0]


def test_rotated_boxes_overlap_by_their_rotated_area():
    boxes = [[50.0, 50, 40, 4, 0], [50, 50, 40, 4, 90], [50, 50, 40, 4, 180]]
    assert select(boxes, [0.9, 0.8, 0.7], [0, 0, 0]) == [0, 1]


def test_no_boxes():
    assert (
        select_pooled(
            torch.zeros(0, 4),
            torch.zeros(0),
            torch.zeros(0).long(),
            score_thresh=0.0,
            nms_thresh=0.5,
            topk=10,
        ).tolist()
        == []
    )
