import pytest
import torch

from hydet.modeling import detector_postprocess, sem_seg_postprocess
from hydet.structures import Boxes, Instances, ROIMasks


def detections(**fields):
    boxes = Boxes([[2.0, 1, 6, 5], [-4, 0, -1, 3], [5, 4, 12, 9]])  # the second box is outside of the image
    return Instances((8, 10), pred_boxes=boxes, scores=torch.tensor([0.9, 0.8, 0.7]), **fields)


def test_boxes_are_scaled_and_clipped_and_empty_boxes_are_dropped():
    results = detections()
    final = detector_postprocess(results, 16, 30)
    assert final.image_size == (16, 30)
    assert final.pred_boxes.tensor.tolist() == [[6, 2, 18, 10], [15, 8, 30, 16]]
    torch.testing.assert_close(final.scores, torch.tensor([0.9, 0.7]))
    assert results.image_size == (8, 10) and len(results) == 3  # the input does not change
    assert results.pred_boxes.tensor[0].tolist() == [2, 1, 6, 5]


def test_proposals_are_scaled():
    proposals = Instances((8, 10), proposal_boxes=Boxes([[0.0, 0, 5, 4]]), objectness_logits=torch.zeros(1))
    final = detector_postprocess(proposals, 4, 5)
    assert final.proposal_boxes.tensor.tolist() == [[0, 0, 2.5, 2]] and final.has("objectness_logits")


@pytest.mark.parametrize("container", [lambda masks: masks[:, None], ROIMasks])
def test_masks_are_pasted(container):
    masks = torch.zeros(3, 4, 4)
    masks[0, :, :2] = 1.0  # the left half of the first box
    final = detector_postprocess(detections(pred_masks=container(masks)), 8, 10)
    assert final.pred_masks.dtype == torch.bool and final.pred_masks.shape == (2, 8, 10)
    assert final.pred_masks[0].nonzero().amin(dim=0).tolist() == [1, 2]
    assert final.pred_masks[0].nonzero().amax(dim=0).tolist() == [4, 3]
    assert not final.pred_masks[1].any()


def test_keypoints_are_scaled_but_not_clipped():
    keypoints = torch.tensor([[[20.0, 4, 0.5]], [[0, 0, 0.1]], [[5, -2, 0.9]]])
    final = detector_postprocess(detections(pred_keypoints=keypoints), 16, 30)
    torch.testing.assert_close(final.pred_keypoints, torch.tensor([[[60.0, 8, 0.5]], [[15, -4, 0.9]]]))


def test_results_without_boxes_raise():
    with pytest.raises(ValueError, match=r"needs pred_boxes or proposal_boxes, got \['scores'\]"):
        detector_postprocess(Instances((8, 10), scores=torch.zeros(1)), 8, 10)


def test_no_detections_stay_empty_at_the_output_resolution():
    final = detector_postprocess(detections(pred_masks=torch.zeros(3, 1, 4, 4))[:0], 16, 30)
    assert len(final) == 0 and final.pred_masks.shape == (0, 16, 30)


def test_sem_seg_scores_are_cropped_and_resized():
    scores = torch.full((2, 12, 12), 9.0)  # padding must not leak into the result
    scores[0, :8, :10], scores[1, :8, :10] = 1.0, -1.0
    resized = sem_seg_postprocess(scores.bfloat16(), (8, 10), 16, 20)
    assert resized.shape == (2, 16, 20) and resized.dtype == torch.float32
    assert (resized[0] == 1).all() and (resized[1] == -1).all()
