"""Small models, comparison of classes with the interfaces that they implement, and the sizes of intermediate results."""

import contextlib
import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hydet
from hydet.structures import Boxes, Instances


@pytest.fixture(scope="session")
def differences():
    """Return a function that lists how an object differs from a protocol: missing members, incompatible arguments."""
    return list_differences


def list_differences(protocol, instance):
    messages = []
    for name in sorted(members(protocol)):
        if not hasattr(instance, name):
            messages.append(f"has no {name}")
        elif inspect.isfunction(vars(protocol).get(name)):
            method = type(instance).forward if name == "__call__" else getattr(type(instance), name)
            messages += [f"{name}: {reason}" for reason in list_incompatible(vars(protocol)[name], method)]
    return messages


def members(protocol):
    """Return the names of the public members that a protocol itself declares, and ``__call__``."""
    names = {*vars(protocol), *inspect.get_annotations(protocol)}
    return {name for name in names if name == "__call__" or not name.startswith("_")}


def list_incompatible(declared, method):
    """Return the reasons why ``method`` cannot be called with the positional arguments of ``declared``."""
    expected = list(inspect.signature(declared).parameters.values())
    actual = list(inspect.signature(method).parameters.values())
    reasons = [f"lacks the argument {parameter.name}" for parameter in expected[len(actual) :]]
    reasons += [
        f"the argument {b.name} has no default"
        for a, b in zip(expected, actual, strict=False)
        if a.default is not a.empty and b.default is b.empty
    ]
    reasons += [
        f"needs the argument {parameter.name}"
        for parameter in actual[len(expected) :]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    return reasons


class LargestResult(TorchDispatchMode):
    """Records the number of elements in the largest storage that an operation returns, forward or backward.

    Operations inside custom ops are not seen, only their results.
    """

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self.numel = max(self.numel, result.untyped_storage().nbytes() // result.itemsize)
        return results


@pytest.fixture
def largest_result():
    """Return a context manager that yields a ``LargestResult``."""

    @contextlib.contextmanager
    def record():
        with LargestResult() as largest:
            yield largest

    return record


@pytest.fixture(scope="session")
def small_model():
    """Return a function that builds a small model, once per name. Random weights detect something everywhere."""
    models = {}

    def build_once(name):
        if name not in models:
            torch.manual_seed(0)
            overrides = ["backbone=r50_slim"] if name.endswith("c4") else []
            model = hydet.instantiate(hydet.compose(f"model={name}", "size=slim", *overrides).model)
            images = [{"image": (torch.rand(3, 64, 96) * 255).byte()} for _ in range(2)]
            if model.needs_proposals:
                boxes = Boxes([[0.0, 0, 40, 40], [20, 10, 90, 60]])
                for image in images:
                    image["proposals"] = Instances(
                        (64, 96), proposal_boxes=boxes, objectness_logits=torch.zeros(2)
                    )
            with torch.no_grad():  # adapts batch normalization, so that random weights do not explode
                model.inference(images)
            model.eval()
            for module in model.modules():
                if hasattr(module, "test_score_thresh"):
                    module.test_score_thresh = 0.0
            models[name] = model
        return models[name]

    return build_once
