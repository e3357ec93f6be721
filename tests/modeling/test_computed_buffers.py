import io

import pytest
import torch
from torch import nn

from hydet.modeling.computed_buffers import ComputedBuffers


class Scaled(ComputedBuffers):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.register_computed_buffers()

    def computed_buffers(self):
        return {"scale": torch.tensor([2.0, 3.0])}


def meta_parent():
    with torch.device("meta"):
        return nn.Sequential(Scaled())


@pytest.mark.parametrize("of_parent", [True, False])
def test_buffers_have_their_values_after_to_empty(of_parent):
    parent = meta_parent()
    (parent if of_parent else parent[0]).to_empty(device="cpu")
    assert parent[0].scale.tolist() == [2.0, 3.0]
    parent[0].scale.fill_(7)
    parent[0].to_empty(device="cpu")
    assert parent[0].scale.tolist() == [2.0, 3.0]


def test_buffers_have_their_values_after_weights_are_assigned():
    parent = meta_parent()
    parent.load_state_dict(nn.Sequential(Scaled()).state_dict(), assign=True)
    assert parent[0].scale.tolist() == [2.0, 3.0]


def test_buffers_keep_changed_values_when_the_module_moves():
    module = Scaled()
    module.scale.fill_(7)
    assert module.double().scale.tolist() == [7.0, 7.0]
    assert "scale" not in module.state_dict()


def test_module_can_be_saved_as_a_whole():
    file = io.BytesIO()
    torch.save(Scaled(), file)
    file.seek(0)
    assert torch.load(file, weights_only=False).scale.tolist() == [2.0, 3.0]
