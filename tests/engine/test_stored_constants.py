"""Weight files of 2019 and 2020 hold pixel statistics and anchors, which models compute from their arguments."""

import pytest
import torch
from torch import nn

from hydet.engine import init_from, load_weights
from hydet.modeling import DefaultAnchorGenerator

MEAN, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.register_buffer("pixel_mean", torch.tensor(MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(STD).view(-1, 1, 1), persistent=False)
        self.proposal_generator = nn.Module()
        self.proposal_generator.anchor_generator = DefaultAnchorGenerator(
            sizes=[[32], [64]], aspect_ratios=[0.5, 1.0, 2.0], strides=[4, 8]
        )


@pytest.fixture
def old_file(tmp_path):
    def write(**changes):
        model = Detector()
        state = model.state_dict()
        for level, anchors in enumerate(model.proposal_generator.anchor_generator.cell_anchors):
            state[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = anchors.clone()
        state["pixel_mean"] = model.pixel_mean + 1e-4
        state["pixel_std"] = model.pixel_std.clone()
        path = tmp_path / "model_final.pth"
        torch.save({"model": {**state, **changes}}, path)
        return path

    return write


def test_constants_that_the_model_has_too_are_accepted(old_file):
    for load in (load_weights, init_from):
        report = load(Detector(), old_file())
        assert report.loaded == ("backbone.weight", "backbone.bias")
        assert not (report.unexpected or report.missing or report.differing)


def test_other_pixel_statistics_are_refused_with_the_setting(old_file):
    path = old_file(pixel_std=torch.ones(3, 1, 1))
    model = Detector()
    before = model.backbone.weight.clone()
    for load in (load_weights, init_from):
        with pytest.raises(ValueError, match=r"changes every result; set pixel_std=\[1,1,1\]") as error:
            load(model, path)
        assert "model_final.pth" in str(error.value) and "\n" not in str(error.value)
    assert torch.equal(model.backbone.weight, before)
    assert load_weights(model, path, strict=False).differing == ("pixel_std",)
    assert "other values in the file" in str(init_from(model, path, allow_mismatch=True))
    assert model.pixel_std.flatten().tolist() == pytest.approx(STD)


def test_statistics_in_the_other_channel_order_are_recognized(old_file):
    path = old_file(pixel_mean=torch.tensor(MEAN[::-1]).view(-1, 1, 1))
    with pytest.raises(ValueError, match=r"pixel_mean=\[123\.675,116\.28,103\.53\] and the input_format"):
        load_weights(Detector(), path)


@pytest.mark.parametrize("wrong", [torch.ones(3, 4), torch.ones(5, 4), torch.full((3, 4), torch.nan)])
def test_other_anchors_are_refused(old_file, wrong):
    name = "proposal_generator.anchor_generator.cell_anchors.1"
    with pytest.raises(ValueError, match=rf"{name} has other anchors.*set sizes and aspect_ratios"):
        load_weights(Detector(), old_file(**{name: wrong}))


def test_constants_of_parts_that_the_model_lacks_stay_unexpected(old_file):
    name = "proposal_generator.anchor_generator.cell_anchors.2"
    with pytest.raises(ValueError, match=rf"the model lacks 1 of its tensors: {name}"):
        load_weights(Detector(), old_file(**{name: torch.zeros(3, 4)}))
