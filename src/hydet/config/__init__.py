"""Hydra trees to models: compose a config, build what it names, and say clearly what is wrong with it."""

from .composition import complete_command_line, compose, compose_choices
from .errors import ConfigError, explain, nearest
from .instantiation import check_targets, instantiate
from .resolvers import register_resolvers

__all__ = [
    "ConfigError",
    "check_targets",
    "complete_command_line",
    "compose",
    "compose_choices",
    "explain",
    "instantiate",
    "nearest",
    "register_resolvers",
]
