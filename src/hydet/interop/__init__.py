"""Models and results of other libraries."""

__all__: list[str] = []
