"""Every model option is made of parts that implement the declared interfaces."""

from pathlib import Path

import pytest
import torch
from torch import nn

import hydet
from hydet.modeling import protocols

OPTIONS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
    if path.stem != "mmdet"
)  # mmdet is optional
# Attribute of a meta-architecture -> interface of the part that it holds.
PARTS = {
    "backbone": protocols.BackboneProtocol,
    "proposal_generator": protocols.ProposalGenerator,
    "roi_heads": protocols.RegionHeads,
    "sem_seg_head": protocols.SemanticHead,
    "anchor_generator": protocols.AnchorGenerator,
}


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    with torch.device("meta"):
        return hydet.instantiate(hydet.compose(f"model={request.param}").model)


def test_models_are_detectors(model, differences):
    assert isinstance(model, protocols.Detector)
    assert differences(protocols.Detector, model) == []
    assert model.tasks and set(model.tasks) <= set(protocols.Task.__args__)


def test_parts_implement_their_interfaces(model, differences):
    found = {name: part for name in PARTS if (part := getattr(model, name, None)) is not None}
    assert "backbone" in found
    for name, part in found.items():
        assert differences(PARTS[name], part) == [], name


def test_other_modules_are_no_detectors(differences):
    assert not isinstance(nn.Identity(), protocols.Detector)
    assert "has no tasks" in differences(protocols.Detector, nn.Identity())


def test_detection_limits_default_to_those_of_coco():
    assert protocols.DetectionLimits() == (0.5, 100)
