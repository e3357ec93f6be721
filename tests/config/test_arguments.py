from functools import partial

from omegaconf import OmegaConf

from hydet.config.arguments import arguments_of, arguments_of_node


class Base:
    def __init__(self, *, width, depth=1):
        pass


class Derived(Base):
    def __init__(self, *, color, **kwargs):
        super().__init__(**kwargs)


class Open(Base):
    def __init__(self, a, *args, **kwargs):
        pass


def function(x, *, y=1):
    pass


def test_keyword_arguments_of_a_constructor_are_those_of_its_base():
    assert arguments_of(Derived) == ["color", "width", "depth"]
    assert arguments_of(Open) == ["a", "width", "depth"]


def test_arguments_of_functions_and_partials():
    assert arguments_of(function) == ["x", "y"]
    assert arguments_of(partial(function, 1)) == ["y"]
    assert arguments_of(lambda **options: None) is None


def test_arguments_of_a_section():
    assert "in_features" in arguments_of_node(OmegaConf.create({"_target_": "torch.nn.Linear"}))
    assert arguments_of_node(OmegaConf.create({"_target_": "no.such.thing"})) == []
    assert arguments_of_node(OmegaConf.create({"a": 1})) == []
