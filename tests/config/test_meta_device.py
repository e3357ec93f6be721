"""Every architecture of the configs computes all its numbers again after it was built without memory."""

import copy

import pytest
import torch
from torch import Tensor, nn

import hydet

MODELS = [
    "fast_rcnn_fpn", "faster_rcnn_c4", "faster_rcnn_dc5", "mask_rcnn_fpn", "cascade_mask_rcnn_fpn", "keypoint_rcnn_fpn",
    "rotated_faster_rcnn_fpn", "panoptic_fpn", "semantic_fpn", "rpn_fpn", "retinanet", "fcos", "mask_rcnn_vitdet",
]  # fmt: skip


def tensors_outside_the_state_dict(model):
    """Return the buffers that a state dict does not restore, and tensors that are plain attributes of modules."""
    in_state = set(model.state_dict())
    tensors = {name: value for name, value in model.named_buffers() if name not in in_state}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            items = value if isinstance(value, dict) else {"": value}
            if isinstance(value, list | tuple):
                items = dict(enumerate(value))
            if name not in ("_parameters", "_buffers"):
                tensors |= {
                    f"{path}.{name}[{k}]": item for k, item in items.items() if isinstance(item, Tensor)
                }
    return tensors


def move(model, state):
    model.to_empty(device="cpu")
    model.load_state_dict(state)


def move_in_a_parent(model, state):
    nn.Sequential(model).to_empty(device="cpu")
    model.load_state_dict(state)


def assign(model, state):
    model.load_state_dict(state, assign=True)


def check_each_way(source, on_meta):
    state, wanted = source.state_dict(), tensors_outside_the_state_dict(source)
    for leave_meta in (move, move_in_a_parent, assign):
        model = copy.deepcopy(on_meta)
        leave_meta(model, state)
        tensors = tensors_outside_the_state_dict(model)
        assert tensors.keys() == wanted.keys()
        for name, value in wanted.items():
            assert tensors[name].dtype == value.dtype and torch.equal(tensors[name], value), (
                leave_meta,
                name,
            )
    return wanted


@pytest.fixture
def _empty_is_nan():
    """Fill uninitialized memory with NaN, or with the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_empty_is_nan")
@pytest.mark.parametrize("name", MODELS)
def test_models_have_all_their_numbers_after_the_meta_device(name, meta):
    backbone = "vitdet_slim" if name == "mask_rcnn_vitdet" else "r18_slim"
    config = hydet.compose(f"model={name}", f"backbone={backbone}", "size=slim").model
    source = hydet.instantiate(config)
    with meta():
        on_meta = hydet.instantiate(config)
    assert {"pixel_mean", "pixel_std"} <= check_each_way(source, on_meta).keys()


@pytest.mark.usefixtures("_empty_is_nan")
def test_networks_of_timm_have_all_their_numbers_after_the_meta_device():
    pytest.importorskip("timm")
    from hydet.modeling import TimmBackbone

    options = {"depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 1, 1)}
    arguments = {"model_name": "swin_tiny_patch4_window7_224", "model_options": options}
    source = TimmBackbone(**arguments)
    with torch.device("meta"):
        on_meta = TimmBackbone(**arguments)
    random_state = torch.get_rng_state()
    assert len(check_each_way(source, on_meta)) == 4
    assert torch.equal(torch.get_rng_state(), random_state)
