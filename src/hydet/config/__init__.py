"""Compose configs, build the objects that they describe, and explain errors in them."""

from .composition import complete_command_line, compose, compose_choices
from .errors import ConfigError, explain, nearest
from .instantiation import TargetCheck, build_targets, check_targets, find_targets, instantiate, to_plain
from .literals import literal_config
from .resolvers import register_resolvers

__all__ = [
    "ConfigError",
    "TargetCheck",
    "build_targets",
    "check_targets",
    "complete_command_line",
    "compose",
    "compose_choices",
    "explain",
    "find_targets",
    "instantiate",
    "literal_config",
    "nearest",
    "register_resolvers",
    "to_plain",
]
