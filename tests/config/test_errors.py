import pytest

import hydet
from hydet.config import nearest


def test_nearest_name():
    assert nearest("lrr", ["lr", "momentum"]) == "; nearest: 'lr'"
    assert nearest("xyz", ["lr", "momentum"]) == "; known: lr, momentum"
    assert nearest("xyz", []) == ""


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", ["unknown key 'optimizer.lrr'", "nearest: 'lr'"]),
        ("seed.x=1", ["seed is the value 0, not a section"]),
        ("backbone=r51", ["backbone=r51: there is no such option", "nearest: 'r50'"]),
        ("logger=null", ["logger=null: a group takes the name of an option; ~logger leaves the group out"]),
        ("optimizer.lr=[", ["cannot read the override optimizer.lr=["]),
    ],
)
def test_one_line_per_error(override, words):
    with pytest.raises(hydet.ConfigError) as error:
        hydet.compose(override)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value).replace("'optimizer.lr=['", "optimizer.lr=[")


def test_a_primary_config_that_does_not_exist():
    with pytest.raises(hydet.ConfigError, match="there is no config 'nothing'"):
        hydet.compose(config_name="nothing")
