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
