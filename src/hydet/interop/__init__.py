"""Models, weights and results of other libraries."""

from .foreign import ForeignModel, ForeignWeights
from .weight_file import read_foreign

__all__ = ["ForeignModel", "ForeignWeights", "read_foreign"]
