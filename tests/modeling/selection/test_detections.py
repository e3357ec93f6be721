import pytest
import torch

from hydet.modeling import fast_rcnn_inference, fast_rcnn_inference_rotated
from hydet.modeling.selection.detections import select_class_boxes
from hydet.structures import Boxes, RotatedBoxes, pairwise_iou

SIZE = (60, 80)


def infer(boxes, scores, *, shapes=None, score=0.1, nms=0.5, topk=100, **options):
    shapes = shapes or [SIZE] * len(boxes)
    return fast_rcnn_inference(boxes, scores, shapes, score, nms, topk, **options)


def random_boxes(count, size, smallest=6.0):
    """``(count, 4)`` boxes inside an image of (height, width)."""
    height, width = size
    sides = smallest + torch.rand(count, 2) * 0.5 * min(size)
    near = torch.rand(count, 2) * (torch.tensor([width, height]) - sides).clamp(min=0)
    return torch.cat([near, near + sides], dim=1)


def crowd(count=40):
    return random_boxes(6, SIZE).repeat(count // 6 + 1, 1)[:count] + torch.rand(count, 4) * 4


def test_images_do_not_affect_one_another():
    boxes = [crowd(30).repeat(1, 3), crowd(10).repeat(1, 3), torch.zeros(0, 12)]
    scores = [torch.rand(len(b), 4) for b in boxes]
    together, rows = infer(boxes, scores)
    for b, s, output, indices in zip(boxes, scores, together, rows, strict=True):
        (alone,), (index,) = infer([b], [s])
        torch.testing.assert_close(output.pred_boxes.tensor, alone.pred_boxes.tensor)
        torch.testing.assert_close(output.scores, alone.scores)
        assert indices.tolist() == index.tolist()


def test_rows_are_positions_in_the_input():
    boxes, scores = crowd(30), torch.rand(30, 3)
    scores[4] = float("nan")  # a row that is dropped does not shift the others
    (output,), (rows,) = infer([boxes], [scores])
    assert 4 not in rows
    torch.testing.assert_close(scores[rows, output.pred_classes], output.scores)
    clipped = Boxes(boxes[rows])
    clipped.clip(SIZE)
    torch.testing.assert_close(output.pred_boxes.tensor, clipped.tensor)


def test_detections_of_a_class_are_sorted_and_do_not_overlap():
    (output,), _ = infer([crowd().repeat(1, 2)], [torch.rand(40, 3)], nms=0.3, topk=-1)
    assert (output.scores.diff() <= 0).all()
    for category in range(2):
        members = output.pred_boxes[output.pred_classes == category]
        assert (pairwise_iou(members, members).fill_diagonal_(0) <= 0.3).all()


def test_the_score_threshold_is_strict_and_background_gives_no_detection():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])
    scores = torch.tensor([[0.5, 0.9], [0.6, 0.1], [0.1, 0.99]])
    (output,), (rows,) = infer([boxes], [scores], score=0.5)
    assert rows.tolist() == [1] and output.pred_classes.tolist() == [0]


@pytest.mark.parametrize(("topk", "count"), [(-1, 5), (3, 3), (0, 0), (9, 5)])
def test_number_of_detections_is_limited(topk, count):
    boxes = torch.arange(5.0)[:, None] * 12 + torch.tensor([0.0, 0, 10, 10])
    (output,), _ = infer([boxes], [torch.rand(5, 2) * 0.5 + 0.4], topk=topk)
    assert len(output) == count


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_with_a_non_finite_number_are_dropped(bad):
    boxes, scores = random_boxes(3, SIZE).repeat(1, 2), torch.rand(3, 3) + 0.2
    boxes[0, 7], scores[2, 2] = bad, bad
    (_,), (rows,) = infer([boxes], [scores])
    assert set(rows.tolist()) == {1}


def test_empty_results_have_all_fields():
    (output, other), _ = infer([torch.zeros(0, 4), torch.rand(3, 4)], [torch.zeros(0, 6), torch.zeros(3, 6)])
    for single in (output, other):
        assert (
            len(single) == 0
            and single.pred_boxes.tensor.shape == (0, 4)
            and single.pred_classes.dtype == torch.int64
        )


def test_wrong_shapes_raise():
    with pytest.raises(ValueError, match="columns"):
        infer([torch.zeros(2, 8)], [torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="rows"):
        infer([torch.zeros(2, 4)], [torch.zeros(3, 4)])
    with pytest.raises(ValueError, match="images"):
        infer([torch.zeros(2, 4)], [])


def test_rotated_boxes_without_rotation_are_upright_boxes():
    boxes, scores = crowd(20), torch.rand(20, 3)
    turned = torch.cat(
        [(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], torch.zeros(20, 1)], 1
    )
    (upright,), (rows,) = infer([boxes], [scores])
    (rotated,), (same,) = fast_rcnn_inference_rotated([turned], [scores], [SIZE], 0.1, 0.5, 100)
    assert isinstance(rotated.pred_boxes, RotatedBoxes)
    assert rows.tolist() == same.tolist()
    corners = rotated.pred_boxes.tensor
    corners = torch.cat([corners[:, :2] - corners[:, 2:4] / 2, corners[:, :2] + corners[:, 2:4] / 2], dim=1)
    torch.testing.assert_close(corners, upright.pred_boxes.tensor, rtol=1e-4, atol=1e-4)


def test_rotated_boxes_are_clipped_only_when_nearly_upright_and_angles_are_wrapped():
    boxes = torch.tensor([[5.0, 5, 20, 8, 0.5], [5, 40, 20, 8, 400]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.1]])
    (output,), _ = fast_rcnn_inference_rotated([boxes], [scores], [SIZE], 0.1, 0.5, 100)
    expected = torch.tensor([[7.5, 5, 15, 8, 0.5], [5, 40, 20, 8, 40]])
    torch.testing.assert_close(output.pred_boxes.tensor, expected)


def test_rotated_clipping_agrees_with_the_container():
    boxes = torch.cat(
        [torch.rand(50, 2) * 90 - 5, torch.rand(50, 2) * 30 + 2, torch.rand(50, 1) * 6 - 3], dim=1
    )
    (output,), (rows,) = fast_rcnn_inference_rotated([boxes], [torch.rand(50, 2)], [SIZE], 0.0, 1.0, -1)
    expected = RotatedBoxes(boxes[rows])
    expected.clip(SIZE)
    torch.testing.assert_close(output.pred_boxes.tensor, expected.tensor)


def test_exported_programs_return_any_number_of_detections():
    class Detect(torch.nn.Module):
        def forward(self, boxes, scores):
            (output,), (rows,) = infer([boxes], [scores])
            return output.pred_boxes.tensor, output.scores, output.pred_classes, rows

    rows = torch.export.Dim("rows", min=1)
    example = (crowd(9).repeat(1, 2), torch.rand(9, 3))
    exported = torch.export.export(Detect(), example, strict=False, dynamic_shapes=({0: rows}, {0: rows}))
    for count, scale in ((9, 1.0), (9, 0.0), (1, 1.0), (30, 1.0)):
        inputs = crowd(count).repeat(1, 2), torch.rand(count, 3) * scale
        for ours, expected in zip(exported.module()(*inputs), Detect()(*inputs), strict=True):
            torch.testing.assert_close(ours, expected)


def test_max_candidates_gives_the_same_detections_without_a_count():
    boxes, scores = crowd(30)[None, :, None], torch.rand(1, 30, 3)
    settings = {"score_threshold": 0.1, "nms_threshold": 0.5, "max_detections": 10}
    valid = torch.ones(1, 30, dtype=torch.bool)
    expected = select_class_boxes(boxes, scores, valid, [SIZE], **settings)
    selected = select_class_boxes(boxes, scores, valid, [SIZE], **settings, max_candidates=90)
    assert selected.counts.tolist() == expected.counts.tolist()
    count = int(selected.counts)
    assert torch.equal(selected.indices[0, :count], expected.indices[0, :count])
    assert torch.equal(selected.boxes[0, :count], expected.boxes[0, :count])


def test_select_class_boxes_compiles_to_one_graph():
    def select(boxes, scores, valid):
        return select_class_boxes(
            boxes,
            scores,
            valid,
            [SIZE],
            score_threshold=0.1,
            nms_threshold=0.5,
            max_detections=10,
            max_candidates=40,
        )

    args = crowd(30)[None, :, None], torch.rand(1, 30, 3), torch.ones(1, 30, dtype=torch.bool)
    compiled = torch.compile(select, backend="eager", fullgraph=True)
    for actual, expected in zip(compiled(*args), select(*args), strict=True):
        assert torch.equal(actual, expected)


def test_small_boxes_are_dropped_after_clipping():
    boxes = torch.tensor([[10.0, 10, 30, 30], [79.995, 10, 90, 30], [-5, 10, 0, 30]])
    scores = torch.tensor([[0.9, 0.1]]).repeat(3, 1)
    (every,), _ = infer([boxes], [scores])
    (large,), (rows,) = infer([boxes], [scores], min_box_size=0.01)
    assert len(every) == 3 and len(large) == 1 and rows.tolist() == [0]


def test_class_agnostic_suppression_crosses_classes():
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 31], [40, 40, 50, 50]])
    scores = torch.tensor([[0.3, 0.6, 0.1], [0.9, 0.0, 0.1], [0.2, 0.8, 0.0]])
    (result,), (rows,) = infer([boxes], [scores], class_agnostic_nms=True)
    assert result.pred_classes.tolist() == [0, 1] and rows.tolist() == [1, 2]
