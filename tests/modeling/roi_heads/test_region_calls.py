import pytest
import torch

from hydet.modeling.roi_heads.region_calls import compute_region_losses, predict_regions
from hydet.structures import Boxes, Instances


def decide_by_ground_truth(x, instances):
    """A head of the documented interface that only looks at the fields of its instances."""
    if instances[0].has("gt_classes"):
        return {"loss_mask": x.sum()}
    return [Instances(i.image_size, pred_boxes=i.pred_boxes, pred_masks=x) for i in instances]


def labeled_detections(count=2):
    return Instances(
        (8, 8), pred_boxes=Boxes(torch.rand(count, 4)), gt_classes=torch.arange(count), gt_note=["a"] * count
    )


def test_detections_with_ground_truth_get_predictions_and_keep_their_fields():
    detections = labeled_detections()
    (result,) = predict_regions(decide_by_ground_truth, torch.rand(2, 1, 4, 4), [detections])
    assert set(result.get_fields()) == {"pred_boxes", "pred_masks", "gt_classes", "gt_note"}
    assert torch.equal(result.gt_classes, torch.arange(2)) and result.gt_note == ["a", "a"]
    assert set(detections.get_fields()) == {"pred_boxes", "gt_classes", "gt_note"}


def test_outputs_of_the_wrong_type_raise():
    losses, instances = {"loss_mask": torch.zeros(())}, [Instances((8, 8))]
    x = torch.zeros(0)
    assert compute_region_losses(lambda x, i: losses, x, instances) is losses
    with pytest.raises(TypeError, match=r"must return losses .* got list"):
        compute_region_losses(lambda x, i: list(i), x, instances)
    with pytest.raises(TypeError, match=r"must return Instances .* got losses"):
        predict_regions(lambda x, i: losses, x, instances)
