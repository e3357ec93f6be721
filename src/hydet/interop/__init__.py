"""Models, weights and results of other libraries."""

from .foreign import ForeignModel, ForeignWeights
from .locations import find_weights
from .recipes import Recipe, recipe, recipes
from .weight_file import read_foreign

__all__ = [
    "ForeignModel",
    "ForeignWeights",
    "Recipe",
    "find_weights",
    "read_foreign",
    "recipe",
    "recipes",
]
