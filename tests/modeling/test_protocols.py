"""Every model option is made of parts that implement the declared interfaces."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

import hydet
import hydet.conf
from hydet.modeling import protocols

MODELS = (Path(hydet.conf.__path__[0]) / "model").glob("*.yaml")
OPTIONS = sorted(path.stem for path in MODELS if path.stem != "mmdet")  # needs mmdet, an optional dependency
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


def test_every_model_is_a_detector_with_known_tasks(model, differences):
    assert isinstance(model, protocols.Detector)
    assert differences(protocols.Detector, model) == []
    assert model.tasks and set(model.tasks) <= set(get_args(protocols.Task))


def test_parts_of_every_model_implement_their_interfaces(model, differences):
    parts = {name: part for name in PARTS if (part := getattr(model, name, None)) is not None}
    assert "backbone" in parts
    for name, part in parts.items():
        assert differences(PARTS[name], part) == [], name


def test_anchor_generators_of_proposal_generators_implement_their_interface(model, differences):
    generator = getattr(getattr(model, "proposal_generator", None), "anchor_generator", None)
    if generator is None:
        pytest.skip("has no proposal generator")
    assert differences(protocols.AnchorGenerator, generator) == []


def test_a_module_without_tasks_is_not_a_detector(differences):
    assert not isinstance(nn.Identity(), protocols.Detector)
    assert "has no tasks" in differences(protocols.Detector, nn.Identity())


def test_missing_arguments_are_differences(differences):
    class Head(nn.Module):
        num_classes, ignore_value = 2, 255

        def forward(self, features, targets, scale):
            return None, {}

    assert differences(protocols.SemanticHead, Head()) == [
        "__call__: the argument targets has no default",
        "__call__: needs the argument scale",
    ]


def test_detection_limits_default_to_those_of_coco():
    assert protocols.DetectionLimits() == (0.5, 100)
