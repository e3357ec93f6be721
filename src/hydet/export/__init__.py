"""Export of models."""

__all__: list[str] = []
