"""Conversion of mmdet's outputs to hydet."""

import pytest
import torch

from hydet.interop.mmdet.results import (
    instances_from_mmdet,
    panoptic_from_mmdet,
    proposals_from_mmdet,
    scalar_losses,
    sem_seg_from_mmdet,
)


class FieldDict(dict):
    """Stub of mmengine's ``InstanceData``: fields by attribute and by ``in``."""

    __getattr__ = dict.__getitem__


def test_scalar_losses_match_the_sums_of_mmdet():
    levels = [torch.tensor([1.0, 3.0]), torch.tensor(4.0)]
    losses = scalar_losses(
        {"loss_cls": levels, "s0.loss_bbox": torch.tensor(5.0), "acc": torch.tensor([97.0]), "loss_none": []}
    )
    assert {name: float(loss) for name, loss in losses.items()} == {"loss_cls": 6.0, "s0.loss_bbox": 5.0}
    assert all(loss.ndim == 0 for loss in losses.values())


def test_scalar_losses_keep_gradients():
    weight = torch.ones(2, requires_grad=True)
    scalar_losses({"loss": [weight * 2, weight.sum()]})["loss"].backward()
    assert weight.grad.tolist() == [2.0, 2.0]


def test_loss_of_another_type_raises():
    with pytest.raises(TypeError, match="expected 'loss_x' as a tensor or a list of tensors, got float"):
        scalar_losses({"loss_x": 1.0})


def test_instances_are_clipped_and_keep_their_order():
    predictions = FieldDict(
        bboxes=torch.tensor([[-3.0, 2, 30, 20], [5, 5, 9, 9]]),
        scores=torch.tensor([0.2, 0.9]).half(),
        labels=torch.tensor([1, 0], dtype=torch.int32),
        masks=torch.zeros(2, 16, 24, dtype=torch.uint8),
    )
    result = instances_from_mmdet(predictions, (16, 24))
    assert result.image_size == (16, 24)
    assert result.pred_boxes.tensor.tolist() == [[0, 2, 24, 16], [5, 5, 9, 9]]
    assert result.scores.dtype == torch.float32 and result.pred_classes.tolist() == [1, 0]
    assert result.pred_masks.dtype == torch.bool and result.pred_masks.shape == (2, 16, 24)
    assert predictions["bboxes"][0, 0] == -3.0


def test_boxes_are_computed_from_masks_without_a_box_head():
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, 3:7, 4:20] = True
    predictions = FieldDict(
        bboxes=torch.zeros(2, 4), scores=torch.ones(2), labels=torch.zeros(2).long(), masks=masks.numpy()
    )
    boxes = instances_from_mmdet(predictions, (16, 24), has_boxes=False).pred_boxes
    assert boxes.tensor.tolist() == [[4, 3, 20, 7], [0, 0, 0, 0]]


def test_instances_of_an_image_without_detections():
    predictions = FieldDict(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long())
    result = instances_from_mmdet(predictions, (16, 24))
    assert len(result) == 0 and not result.has("pred_masks")


def test_proposals_have_logits():
    predictions = FieldDict(bboxes=torch.tensor([[-3.0, 2, 30, 20]]), scores=torch.tensor([0.25]))
    result = proposals_from_mmdet(predictions, (16, 24))
    assert result.proposal_boxes.tensor.tolist() == [[0, 2, 24, 16]]
    torch.testing.assert_close(result.objectness_logits.sigmoid(), torch.tensor([0.25]))


def test_panoptic_segments_are_things_then_stuff():
    labels = torch.full((1, 4, 6), 5)  # 3 things and 2 stuff: there is no class 5
    labels[0, 0] = 3
    labels[0, 1] = 4
    labels[0, 2, :2] = 2001
    labels[0, 2, 2:] = 1001
    ids, segments = panoptic_from_mmdet(labels, num_things=3, num_stuff=2)
    assert segments == [
        {"id": 1, "isthing": True, "category_id": 1, "area": 4},
        {"id": 2, "isthing": True, "category_id": 1, "area": 2},
        {"id": 3, "isthing": False, "category_id": 1, "area": 6},
        {"id": 4, "isthing": False, "category_id": 2, "area": 6},
    ]
    assert ids.dtype == torch.int32
    assert ids.tolist() == [[3] * 6, [4] * 6, [2, 2, 1, 1, 1, 1], [0] * 6]


def test_panoptic_map_without_segments():
    ids, segments = panoptic_from_mmdet(torch.full((4, 6), 5), num_things=3, num_stuff=2)
    assert segments == [] and ids.abs().sum() == 0


def test_semantic_labels_become_scores():
    labels = torch.tensor([[[0, 2], [1, 1]]])
    assert sem_seg_from_mmdet(labels).argmax(dim=0).tolist() == labels[0].tolist()
    scores = torch.rand(3, 2, 2)
    assert sem_seg_from_mmdet(scores) is scores
