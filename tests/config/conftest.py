"""The published configurations; each is composed and built once for all tests."""

import functools
import gzip
import json
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

import hydet

GOLDENS = Path(__file__).parents[1] / "parity" / "goldens"


@functools.cache
def golden(name):
    with gzip.open(GOLDENS / name, "rt", encoding="utf-8") as file:
        return json.load(file)


class Unfilled(TorchFunctionMode):
    """Skips random initialization, which has no effect on the meta device but takes half of the time."""

    FILLING = (
        init.kaiming_uniform_, init.kaiming_normal_, init.xavier_uniform_, init.normal_, init.uniform_,
        init.trunc_normal_, Tensor.normal_, Tensor.uniform_,
    )  # fmt: skip

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.FILLING:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


@contextmanager
def on_meta():
    """Build modules whose parameters have shapes and types, but no values."""
    with torch.device("meta"), Unfilled():
        yield


class Recipe:
    """A published configuration: its facts in the reference, and the config of ``experiment=...``.

    ``facts`` holds the resolved ``model``, and either ``differences`` from the defaults of the reference or the parts of
    a lazy config (``dataloader``, ``optimizer``, ``lr_multiplier``, ``train``).
    """

    def __init__(self, path):
        self.path = path
        self.facts = golden("zoo_facts.json.gz")["configs"][path]
        # configs/COCO-Detection/x.yaml -> COCO-Detection/x; projects/ViTDet/configs/COCO/x.py -> ViTDet/COCO/x
        folder, _, rest = path.rpartition(".")[0].partition("/")
        self.name = rest if folder == "configs" else rest.replace("/configs", "", 1)

    @property
    def is_lazy(self):
        return "differences" not in self.facts

    def settings(self, section):
        """Return a section such as ``SOLVER`` of a configuration that is not lazy."""
        defaults = golden("zoo_facts.json.gz")["defaults"][section]
        return merged(defaults, self.facts["differences"].get(section, {}))

    @functools.cached_property
    def config(self):
        return hydet.compose(f"experiment={self.name}")

    @functools.cached_property
    def inventory(self):
        """Return names and shapes of the model's weights; keeping the model itself would take much memory."""
        with on_meta(), warnings.catch_warnings():
            # Recipes of LVIS read class frequencies from a file that is not here.
            warnings.filterwarnings("ignore", "datasets/.* does not exist")
            model = hydet.instantiate(self.config.model)
        return Inventory(model, hydet.instantiate(self.config.parameter_groups)(model))


# The layers that detectron2.solver.get_default_optimizer_params counts as norms.
NORMS = (
    torch.nn.modules.batchnorm._BatchNorm,
    torch.nn.modules.instancenorm._InstanceNorm,
    torch.nn.GroupNorm,
    torch.nn.LayerNorm,
    torch.nn.LocalResponseNorm,
)


class Inventory:
    """Properties of a model and its parameter groups that the tests compare."""

    def __init__(self, model, groups):
        self.weights = {
            name: (list(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in model.state_dict().items()
        }
        self.num_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.tasks = set(model.tasks)
        self.norm_parameters = {
            f"{prefix}.{name}"
            for prefix, module in model.named_modules()
            if isinstance(module, NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }
        names = {id(p): name for name, p in model.named_parameters()}
        # Name of each trainable parameter -> (weight decay or None for the optimizer's, learning-rate factor)
        self.groups = {
            names[id(p)]: (group.get("weight_decay"), group["lr_factor"])
            for group in groups
            for p in group["params"]
        }


def merged(base, changes):
    both = {k: merged(base[k], v) if isinstance(v, dict) and k in base else v for k, v in changes.items()}
    return {**base, **both}


RECIPES = [Recipe(path) for path in sorted(golden("zoo_facts.json.gz")["configs"])]


def pytest_generate_tests(metafunc):
    if "recipe" in metafunc.fixturenames:
        metafunc.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


@pytest.fixture(scope="session")
def meta():
    """Context manager that builds modules on the meta device."""
    return on_meta


@pytest.fixture(scope="session")
def recipes():
    return RECIPES


@pytest.fixture(scope="session")
def goldens():
    return golden
