from pathlib import Path

import pytest
import torch

from hydet.data import DataError
from hydet.interop import ForeignWeights
from hydet.interop.suffix_matching import match_by_suffix, match_names

PATH = Path("weights.pkl")


def test_names_match_by_their_ends():
    in_file = ["res2.conv1.weight", "weight", "stem.conv1.weight", "v1.weight", "other"]
    in_model = ["backbone.res2.conv1.weight", "backbone.stem.conv1.weight", "backbone.xres2.conv1.weight.x"]
    assert match_names(in_file, in_model, PATH) == {
        "backbone.res2.conv1.weight": "res2.conv1.weight",
        "backbone.stem.conv1.weight": "stem.conv1.weight",
    }


def test_the_longest_name_wins():
    in_file = ["conv1.weight", "res2.conv1.weight", "weight"]
    in_model = ["a.res2.conv1.weight", "a.res3.conv1.weight", "b.weight"]
    assert list(match_names(in_file, in_model, PATH).values()) == [
        "res2.conv1.weight",
        "conv1.weight",
        "weight",
    ]
    assert match_names(["a.b", "b"], ["a.b"], PATH) == {"a.b": "a.b"}


def test_a_name_that_fits_twice_is_refused():
    with pytest.raises(
        DataError, match=r"weights\.pkl: fc\.weight fits two .* a\.fc\.weight and b\.fc\.weight"
    ):
        match_names(["fc.weight"], ["a.fc.weight", "b.fc.weight"], PATH)


def test_renamed_tensors_keep_their_first_name():
    tensors = {
        "stem.conv1.weight": torch.zeros(1),
        "fc1000.weight": torch.ones(1),
        "head.bias": torch.ones(2),
    }
    renamed = {"stem.conv1.weight": "conv1_w", "fc1000.weight": "fc1000_w"}
    weights = ForeignWeights(PATH, "caffe2", tensors, renamed=renamed, by_suffix=True)
    matched = match_by_suffix(weights, ["backbone.stem.conv1.weight", "model.head.bias"])
    assert list(matched.tensors) == ["backbone.stem.conv1.weight", "fc1000.weight", "model.head.bias"]
    assert matched.renamed == {
        "backbone.stem.conv1.weight": "conv1_w",
        "fc1000.weight": "fc1000_w",
        "model.head.bias": "head.bias",
    }
    assert not matched.by_suffix
