"""Small models with random weights, and inputs for them."""

from types import SimpleNamespace

import pytest
import torch

import hydet
from hydet.modeling import DatasetMapperTTA


def make_entry(height=64, width=96):
    return {
        "image": (torch.rand(3, height, width) * 255).byte(),
        "height": height,
        "width": width,
        "image_id": 1,
    }


def identity_mapper():
    """A mapper whose only copy of a 64-pixel image is the image itself."""
    return DatasetMapperTTA(min_sizes=[64], max_size=1000, flip=False)


@pytest.fixture(scope="session")
def build():
    """Return a function that builds a small model, once per name. Random weights detect something everywhere."""
    models = {}

    def build_once(name):
        if name not in models:
            torch.manual_seed(0)
            overrides = ["backbone=r50_slim"] if name.endswith("c4") else []
            model = hydet.instantiate(hydet.compose(f"model={name}", "size=slim", *overrides).model)
            with torch.no_grad():  # adapts batch normalization, so that random weights do not explode
                model.inference([make_entry(), make_entry()])
            model.eval()
            for module in model.modules():
                if hasattr(module, "test_score_thresh"):
                    module.test_score_thresh = 0.0
            models[name] = model
        return models[name]

    return build_once


@pytest.fixture
def make():
    """Return the functions of this file."""
    return SimpleNamespace(entry=make_entry, identity_mapper=identity_mapper)
