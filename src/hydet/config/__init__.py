"""Compose configs, build the objects that they describe, and explain errors in them."""

from .composition import complete_command_line, compose, compose_choices
from .errors import ConfigError, explain, nearest
from .instantiation import TargetCheck, build_targets, check_targets, find_targets, instantiate, to_plain
from .literals import literal_config
from .path_values import is_sweep, quote_paths
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
    "is_sweep",
    "literal_config",
    "nearest",
    "quote_paths",
    "register_resolvers",
    "to_plain",
]
