"""Changes of a stored config as keywords."""

import pytest

from hydet.config import ConfigError
from hydet.runs.changes import expand_changes

NESTED = {"model": {"heads": {"a": 1, "b": {"c": 2}}}}


@pytest.mark.parametrize(
    "changes",
    [
        NESTED,
        {"model": {"heads.a": 1, "heads.b.c": 2}},
        {"model.heads.a": 1, "model": {"heads": {"b.c": 2}}},
        {"model.heads": {"a": 1}, "model.heads.b": {"c": 2}},
    ],
)
def test_dotted_and_nested_keys(changes):
    assert expand_changes(changes) == NESTED


def test_contradictions_and_other_sections():
    with pytest.raises(ConfigError, match=r"model\.a\.b"):
        expand_changes({"model": {"a": 1, "a.b": 2}})
    with pytest.raises(ConfigError, match=r"model\.a is set to a value and to a section"):
        expand_changes({"model": {"a": 1}, "model.a": {"b": 2}})
    with pytest.raises(ConfigError, match=r"model\.a is set twice"):
        expand_changes({"model": {"a": 1}, "model.a": 2})
    with pytest.raises(TypeError, match="unexpected keyword 'batch_size'"):
        expand_changes({"batch_size": 2})
    with pytest.raises(TypeError, match="model takes a dict"):
        expand_changes({"model": "retinanet"})
