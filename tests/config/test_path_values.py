"""Paths on a command line need no quotes of Hydra's grammar."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydet.config.path_values import is_sweep, quote_paths

PATHS = [
    "photos/a.jpg",
    "photos/my dog (1).jpg",
    "photos/[x].jpg",
    "photos/a,b.jpg",
    "runs/lr=0.1",
    "写真/猫.jpg",
    "photos/{a}.jpg",
    "it's.jpg",
    "C:\\photos\\a.jpg",
    "C:\\photos\\",
    "123",
    "1e5",
    "photos/*.jpg",
    "a'b\\'c",
    "https://example.com/a.pth?x=1&y=2",
    " leading",
    "a:b",
    "#1.jpg",
    "%20.jpg",
]


def value_of(argument):
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["input", "output_dir", "data.train.json", "data.root", "proposals.val"])
def test_a_path_is_read_as_it_is(key, path):
    (argument,) = quote_paths([f"{key}={path}"])
    assert str(value_of(argument)) == path.strip()


def test_quotes_of_the_user_stay():
    assert quote_paths(["input='a b.jpg'", 'input="a,b.jpg"']) == ["input='a b.jpg'", 'input="a,b.jpg"']


@pytest.mark.parametrize(
    "argument",
    [
        "resume=true",
        "init_from=null",
        "checkpoint=${oc.env:X}",
        "optimizer.lr=1,2",
        "input=[a.jpg,b.jpg]",
        "-m",
    ],
)
def test_other_values_stay(argument):
    assert quote_paths([argument]) == [argument]


def test_a_comma_separates_values_in_a_sweep():
    sweep = ["-m", "init_from=a.pth,b.pth"]
    assert is_sweep(sweep) and quote_paths(sweep) == sweep
    assert quote_paths(["init_from=a.pth,b.pth"]) == ["init_from='a.pth,b.pth'"]
    assert quote_paths(["-m", "init_from=a(1).pth"]) == ["-m", "init_from='a(1).pth'"]
