import pytest

from hydet.engine.module_names import summarize_modules


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        ([], ["a.b"], ""),
        (["a.b.weight", "a.b.bias"], ["a.c.weight"], "a.b (2 tensors)"),
        (["a.b.weight", "a.b.bias", "d.x.weight"], ["e.weight"], "a (2 tensors), d"),
        (["a.b.weight"], ["a.b.bias"], "a.b.weight"),
        (["weight", "bias"], [], "weight, bias"),
        ([f"m{i}.w" for i in range(10)], [], "m0, m1, m2, m3, m4, m5, m6, m7 and 2 more"),
    ],
)
def test_largest_modules(names, others, expected):
    assert summarize_modules(names, others) == expected
