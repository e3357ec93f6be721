import torch

from hydet.engine.model_outputs import move_to_cpu
from hydet.structures import Boxes, Instances


class RecordingTensor(torch.Tensor):
    """A tensor that records the device to which it was moved, since tests run without another device."""

    moved_to: list[torch.device] = []

    def to(self, device):
        RecordingTensor.moved_to.append(device)
        return torch.ones(1)


def test_tensors_instances_and_panoptic_maps_move_to_the_cpu():
    RecordingTensor.moved_to.clear()
    tensor = torch.zeros(1).as_subclass(RecordingTensor)
    instances = Instances((4, 4), pred_boxes=Boxes(torch.zeros(2, 4)))
    moved = move_to_cpu({"sem_seg": tensor, "panoptic_seg": (tensor, [{"id": 1}]), "instances": instances})
    assert RecordingTensor.moved_to == [torch.device("cpu")] * 2
    assert moved["panoptic_seg"][1] == [{"id": 1}]
    assert len(moved["instances"]) == 2


def test_other_values_stay_as_they_are():
    assert move_to_cpu({"other": "text"}) == {"other": "text"}
    assert move_to_cpu({}) == {}
