"""Comparison of classes with the interfaces they implement."""

import inspect

import pytest


@pytest.fixture(scope="session")
def differences():
    """Return a function that lists how an object differs from a protocol: missing members, incompatible arguments."""

    def compare(protocol, instance):
        lacking = []
        for name in sorted(
            protocol.__protocol_attrs__ if hasattr(protocol, "__protocol_attrs__") else members(protocol)
        ):
            if not hasattr(type(instance), name) and not hasattr(instance, name):
                lacking.append(f"has no {name}")
            elif inspect.isfunction(vars(protocol).get(name)):
                function = type(instance).forward if name == "__call__" else getattr(type(instance), name)
                lacking += [f"{name}: {text}" for text in incompatible(vars(protocol)[name], function)]
        return lacking

    return compare


def members(protocol):
    names = {*vars(protocol), *inspect.get_annotations(protocol)}
    return {name for name in names if name == "__call__" or not name.startswith("_")}


def incompatible(declared, function):
    """Yield the reasons why ``function`` cannot be called as ``declared``."""
    expected = list(inspect.signature(declared).parameters.values())
    given = list(inspect.signature(function).parameters.values())
    for i in range(len(expected)):
        if i >= len(given):
            yield f"lacks the argument {expected[i].name}"
        elif (
            expected[i].default is not inspect.Parameter.empty and given[i].default is inspect.Parameter.empty
        ):
            yield f"{given[i].name} has no default"
    for extra in given[len(expected) :]:
        if extra.default is inspect.Parameter.empty and extra.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            yield f"needs the argument {extra.name}"
