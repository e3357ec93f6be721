"""Inputs for small models with random weights."""

from types import SimpleNamespace

import pytest
import torch

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


@pytest.fixture
def build(small_model):
    """Return a function that builds a small model, once per name. Random weights detect something everywhere."""
    return small_model


@pytest.fixture
def make():
    """Return the functions of this file."""
    return SimpleNamespace(entry=make_entry, identity_mapper=identity_mapper)
