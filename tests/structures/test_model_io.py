"""Types of model inputs and results."""

import re

import pytest

from hydet.structures import Instances, ModelInput, ModelOutput, SegmentInfo


@pytest.mark.parametrize("cls", [ModelInput, ModelOutput, SegmentInfo])
def test_the_docstring_explains_every_key(cls):
    section = cls.__doc__.split("Keys:")[1]
    assert re.findall(r"^ {8}(\w+):", section, flags=re.MULTILINE) == list(cls.__annotations__)


def test_only_the_image_of_an_input_is_required():
    assert ModelInput.__required_keys__ == {"image"}
    assert ModelOutput.__required_keys__ == frozenset()


def test_results_are_plain_dicts():
    assert ModelOutput(instances=Instances((4, 4))).keys() == {"instances"}
    assert type(SegmentInfo(id=1, isthing=True, category_id=0)) is dict
