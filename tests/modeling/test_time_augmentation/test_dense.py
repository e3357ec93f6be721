import pytest
import torch

from hydet.modeling import DatasetMapperTTA, DenseDetectorWithTTA
from hydet.structures import Boxes, Instances


class FixedDetector(torch.nn.Module):
    """Detects the left half of each image, in the output frame of the input."""

    tasks = ("box",)

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def inference(self, batched_inputs):
        self.batch_sizes.append(len(batched_inputs))
        results = []
        for entry in batched_inputs:
            height, width = entry["height"], entry["width"]
            boxes = Boxes([[0.0, 0, width / 2, height]])
            instances = Instances(
                (height, width), pred_boxes=boxes, scores=torch.tensor([0.9]), pred_classes=torch.tensor([3])
            )
            results.append({"instances": instances})
        return results


def test_boxes_are_mapped_back_and_merged():
    model = FixedDetector()
    mapper = DatasetMapperTTA(min_sizes=[20, 30], max_size=1000, flip=True)
    wrapped = DenseDetectorWithTTA(model=model, tta_mapper=mapper, batch_size=3)
    (result,) = wrapped([{"image": torch.rand(3, 10, 20), "height": 100, "width": 200}])
    # Two images find the left half; their flipped copies find the right half.
    boxes = sorted(result["instances"].pred_boxes.tensor.tolist())
    assert boxes == [[0.0, 0, 100, 100], [100, 0, 200, 100]]
    assert model.batch_sizes == [3, 1]
    assert result["instances"].pred_classes.tolist() == [3, 3]


class RightAngle(torch.nn.Module):
    """Detects the bright pixels of an image, with their mask and a left, a right and a top keypoint.

    It is exactly equivariant to flips: in a flipped image it sees the left keypoint on the left again.
    """

    tasks = ("box", "mask", "keypoints")

    def inference(self, batched_inputs):
        return [{"instances": self.detect(entry["image"][0], entry)} for entry in batched_inputs]

    def detect(self, image, entry):
        size = (entry["height"], entry["width"])
        assert size == tuple(image.shape)
        mask = image > 0.5
        rows, columns = mask.nonzero(as_tuple=True)
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        top = columns[rows == rows.min()].float().mean() + 0.5
        points = [[x1, y2, 0.7], [x2, y2, 0.8], [top, y1, 0.9]]
        return Instances(
            size,
            pred_boxes=Boxes(torch.tensor([[x1, y1, x2, y2]]).float()),
            scores=torch.tensor([0.9]),
            pred_classes=torch.tensor([0]),
            pred_masks=mask[None],
            pred_keypoints=torch.tensor([points]),
        )


@pytest.mark.parametrize("only_flipped", [False, True])
def test_an_equivariant_detector_gives_its_own_results(only_flipped):
    image = torch.zeros(3, 16, 24)
    image[:, 4:12, 2:4] = 1  # an upright bar on the left of a lying one
    image[:, 10:12, 2:9] = 1
    entry = {"image": image, "height": 16, "width": 24}
    mapper = DatasetMapperTTA(min_sizes=[16], max_size=1000, flip=True)
    model = RightAngle()
    wrapped = DenseDetectorWithTTA(
        model=model,
        tta_mapper=(lambda item: mapper(item)[1:]) if only_flipped else mapper,
        keypoint_flip_indices=[1, 0, 2],
    )
    (result,), (expected,) = wrapped([entry]), model.inference([entry])
    assert len(result["instances"]) == 1
    assert torch.equal(result["instances"].pred_masks, expected["instances"].pred_masks)
    assert torch.equal(result["instances"].pred_boxes.tensor, expected["instances"].pred_boxes.tensor)
    points, direct = result["instances"].pred_keypoints, expected["instances"].pred_keypoints
    assert torch.equal(points[..., :2], direct[..., :2])


def test_without_pairs_flipped_images_are_left_out():
    image = torch.zeros(3, 16, 24)
    image[:, 4:12, 2:9] = 1
    model = RightAngle()
    wrapped = DenseDetectorWithTTA(
        model=model, tta_mapper=lambda item: DatasetMapperTTA(min_sizes=[16], max_size=99, flip=True)(item)
    )
    (result,) = wrapped([{"image": image}])
    assert result["instances"].pred_keypoints[0, 0].tolist() == pytest.approx([2, 12, 0.7])
    wrapped.tta_mapper = lambda item: DatasetMapperTTA(min_sizes=[16], max_size=99, flip=True)(item)[1:]
    with pytest.raises(ValueError, match="keypoint_flip_indices"):
        wrapped([{"image": image}])
