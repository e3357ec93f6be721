from copy import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hydet.structures import Instances, ROIMasks


@pytest.mark.parametrize("architecture", ["mask_rcnn_fpn"], indirect=True)
def test_known_boxes_get_masks_and_stay_as_they_are(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    with torch.no_grad():
        detections = model.inference(batch, do_postprocess=False)
        for instances in detections:
            instances.remove("pred_masks")
        results = model.inference(batch, detections, do_postprocess=False)
    for before, after in zip(detections, results, strict=True):
        assert not before.has("pred_masks")
        assert after.pred_masks.shape[0] == len(before)
        assert torch.equal(before.pred_boxes.tensor, after.pred_boxes.tensor)


@pytest.mark.parametrize(
    "architecture", ["mask_rcnn_fpn", "mask_rcnn_c4", "keypoint_rcnn_fpn", "panoptic_fpn"], indirect=True
)
@pytest.mark.parametrize("training", [False, True])
def test_known_boxes_with_ground_truth_get_predictions_in_any_mode(architecture, training):
    model, batch = architecture.model().eval(), architecture.batch()
    with torch.no_grad():
        detections = [output["instances"] for output in model.inference(batch)]
        known = [
            Instances(d.image_size, pred_boxes=d.pred_boxes, pred_classes=d.pred_classes, scores=d.scores)
            for d in detections
        ]
        expected = model.inference(batch, known)
        labeled = [copy(instances) for instances in known]
        for instances in labeled:
            instances.gt_classes = torch.zeros_like(instances.pred_classes)
            instances.gt_boxes = instances.pred_boxes
        results = model.train(training).inference(batch, labeled)
    for result, reference in zip(results, expected, strict=True):
        fields, other = result["instances"].get_fields(), reference["instances"].get_fields()
        assert set(fields) == {*other, "gt_classes", "gt_boxes"}
        for name in ("pred_masks", "pred_keypoints"):
            assert name not in other or training or torch.equal(fields[name], other[name])


@pytest.mark.parametrize("architecture", ["mask_rcnn_fpn", "faster_rcnn_c4"], indirect=True)
def test_flops_can_be_counted(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.inference(batch)
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("architecture", ["fast_rcnn_fpn"], indirect=True)
def test_inputs_need_proposals_if_there_is_no_proposal_generator(architecture):
    model, batch = architecture.model(), architecture.batch()
    assert model.needs_proposals
    del batch[1]["proposals"]
    with pytest.raises(ValueError, match=r"1\.png: .* needs 'proposals'"):
        model(batch)


@pytest.mark.parametrize(
    "architecture", ["fast_rcnn_fpn", "rotated_faster_rcnn_fpn", "rpn_fpn"], indirect=True
)
def test_visualize_training_draws_ground_truth_and_proposals(architecture):
    model, batch = architecture.model(), architecture.batch()
    model.input_format = "BGR"
    with torch.no_grad():
        if architecture.given_proposals:
            proposals = [entry["proposals"] for entry in batch]
            proposals[0].remove("objectness_logits")  # the first proposals are drawn
        else:
            images = model.preprocess_image(batch)
            proposals, _ = model.proposal_generator(images, model.backbone(images.tensor))
    image = model.visualize_training(batch, proposals)
    assert image.shape == (3, 64, 2 * 96) and image.dtype == torch.uint8
    original = batch[0]["image"].flip(0)
    assert (image[:, :, :96] != original).any() and (image[:, :, 96:] != original).any()


@pytest.mark.parametrize("architecture", ["mask_rcnn_fpn", "mask_rcnn_c4", "panoptic_fpn"], indirect=True)
def test_unpasted_results_equal_pasted_ones_after_pasting(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    with torch.no_grad():
        expected = model.inference(batch)
        losses, results = model.detect_unpasted(batch, with_losses=False)
    assert losses == {} and sum(len(output["instances"]) for output in expected) > 0
    for output, reference in zip(results, expected, strict=True):
        instances, pasted = output["instances"], reference["instances"]
        assert isinstance(instances.pred_masks, ROIMasks)
        masks = instances.pred_masks.to_bitmasks(instances.pred_boxes, *instances.image_size).tensor
        assert torch.equal(masks, pasted.pred_masks)
        if "panoptic_seg" in reference:
            assert torch.equal(output["panoptic_seg"][0], reference["panoptic_seg"][0])
            assert output["panoptic_seg"][1] == reference["panoptic_seg"][1]
            assert torch.equal(output["sem_seg"].resize(), reference["sem_seg"])
        assert torch.equal(instances.scores, pasted.scores)
        assert torch.equal(instances.pred_boxes.tensor, pasted.pred_boxes.tensor)
