"""Register containers as pytrees, so that compile, export and tree utilities see their tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor
from torch.utils import _pytree as pytree

T = TypeVar("T")


def register_tensor_container(cls: type[T]) -> type[T]:
    """Register a class whose only state is one tensor, ``self.tensor``.

    Unflattening skips the constructor, because tree utilities replace the tensor by arbitrary objects.
    """

    def flatten(container: T) -> tuple[list[Tensor], None]:
        return [container.tensor], None  # type: ignore[attr-defined]

    def flatten_with_keys(container: T) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], None]:
        return [(pytree.GetAttrKey("tensor"), container.tensor)], None  # type: ignore[attr-defined]

    def unflatten(leaves: Iterable[object], context: object) -> T:
        container = object.__new__(cls)
        (container.tensor,) = leaves  # type: ignore[attr-defined]
        return container

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"hydet.structures.{cls.__name__}",
        flatten_with_keys_fn=flatten_with_keys,
        to_dumpable_context=lambda context: None,
        from_dumpable_context=lambda context: None,
    )
    return cls
