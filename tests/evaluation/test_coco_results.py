import pytest
import torch

from hydet.data import Metadata
from hydet.evaluation import results_to_coco_json
from hydet.evaluation.coco_results import check_fields, run_lengths
from hydet.structures import Boxes, Instances, RotatedBoxes

SIZE = (120, 160)
METADATA = Metadata(thing_classes=("cat", "dog", "owl"), thing_ids=(17, 3, 90))


def test_results_as_json():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[20:60, 10:30] = True
    instances = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([[10.0, 20.0, 30.0, 60.0]])),
        scores=torch.tensor([0.5]),
        pred_classes=torch.tensor([1]),
        pred_masks=mask[None],
        pred_keypoints=torch.tensor([[[1.5, 2.5, 0.25]]]),
    )
    (result,) = results_to_coco_json(
        [{"file_name": "a.jpg"}], [{"instances": instances}], METADATA, keypoint_offset=0.5
    )
    assert result["image_id"] == "a.jpg"
    assert result["category_id"] == 3
    assert result["bbox"] == [10.0, 20.0, 20.0, 40.0]
    assert result["keypoints"] == [1.0, 2.0, 0.25]
    assert result["segmentation"]["size"] == list(SIZE)
    assert isinstance(result["segmentation"]["counts"], str)


def test_class_outside_the_metadata_is_named():
    instances = Instances(
        SIZE, pred_boxes=Boxes(torch.zeros(1, 4)), scores=torch.ones(1), pred_classes=torch.tensor([7])
    )
    with pytest.raises(ValueError, match="class 7"):
        results_to_coco_json([{"image_id": 1}], [{"instances": instances}], METADATA)


def test_rotated_boxes_keep_their_five_numbers():
    instances = Instances(
        SIZE,
        pred_boxes=RotatedBoxes(torch.tensor([[10.0, 20.0, 30.0, 40.0, 15.0]])),
        scores=torch.ones(1),
        pred_classes=torch.zeros(1, dtype=torch.long),
    )
    (result,) = results_to_coco_json([{"image_id": 1}], [{"instances": instances}], METADATA)
    assert result["bbox"] == [10.0, 20.0, 30.0, 40.0, 15.0]


def test_lengths_must_agree_and_instances_are_required():
    with pytest.raises(ValueError, match="1 inputs, but 0 outputs"):
        results_to_coco_json([{"image_id": 1}], [], METADATA)
    with pytest.raises(ValueError, match="expected 'instances'"):
        results_to_coco_json([{"image_id": 1}], [{"sem_seg": torch.zeros(1)}], METADATA)


def test_missing_predictions_are_named():
    with pytest.raises(ValueError, match=r"'segm'.*no pred_masks"):
        check_fields(Instances(SIZE, pred_boxes=Boxes(torch.zeros(0, 4))), ["bbox", "segm"])


def test_many_masks_are_encoded_in_steps_and_probabilities_above_one_half_belong_to_a_mask():
    masks = torch.zeros(70, 4, 5)
    masks[:, 0, 0], masks[:, 1, 1] = 0.51, 0.5
    codes = run_lengths(masks)
    binary = torch.zeros(1, 4, 5, dtype=torch.bool)
    binary[0, 0, 0] = True
    assert codes == run_lengths(binary) * 70
    assert run_lengths(masks[:0]) == []
    with pytest.raises(ValueError, match=r"\(n, H, W\)"):
        run_lengths(torch.zeros(1, 1, 4, 5))
