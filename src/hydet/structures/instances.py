"""The objects of one image: fields of equal length and the image size."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Instances:
    """N objects of one image, stored as fields of length N.

    A field is any value with a length and an index: a tensor, :class:`~hydet.structures.Boxes`, masks, keypoints or a
    list. Fields are read and written as attributes (``instances.scores``), and one index selects from all of them
    (``instances[instances.scores > 0.5]``). ``copy.copy`` returns new instances with the same field values; setting a
    field on the copy does not change the original.

    Args:
        image_size: ``(h, w)`` of the image in pixels.
        **kwargs: initial fields.

    Raises:
        ValueError: if fields differ in length.
    """

    _image_size: tuple[int, int]
    _fields: dict[str, Any]

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = _as_size(image_size)
        self._fields = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """``(h, w)`` in pixels."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        try:
            return self._fields[name]
        except KeyError:
            has = ", ".join(self._fields) or "none"
            raise AttributeError(f"Instances has no field {name!r}; its fields are: {has}") from None

    def __delattr__(self, name: str) -> None:
        if name in self._fields:
            self.remove(name)
        else:
            super().__delattr__(name)

    def set(self, name: str, value: Any) -> None:
        """Set the field ``name``, whose length must match that of the other fields.

        Raises:
            ValueError: if the length differs from that of the other fields.
            TypeError: if ``value`` has no length.
            AttributeError: if ``name`` is an attribute of the class.
        """
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is an attribute of Instances and cannot be a field")
        if not torch.compiler.is_compiling():  # data-dependent lengths cannot be compared while tracing
            length = _length(name, value)
            others = {k: _length(k, v) for k, v in self._fields.items() if k != name}
            if any(n != length for n in others.values()):
                raise ValueError(f"Instances: field {name!r} has length {length}, but there are {others}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Return True if there is a field ``name``."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Remove the field ``name``.

        Raises:
            KeyError: if there is no such field.
        """
        del self._fields[name]

    def get(self, name: str) -> Any:
        """Return the field ``name``.

        Raises:
            KeyError: if there is no such field.
        """
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return all fields by name.

        This is the internal dict. Change it only through :meth:`set` and :meth:`remove`.
        """
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Return instances with ``field.to(*args, **kwargs)`` for each field that has such a method."""
        return self._mapped(lambda v: v.to(*args, **kwargs) if hasattr(v, "to") else v)

    def pin_memory(self) -> Instances:
        """Return instances whose tensors are in page-locked memory, for data loaders."""
        return self._mapped(lambda v: v.pin_memory() if hasattr(v, "pin_memory") else v)

    def _mapped(self, function: Callable[[Any], Any]) -> Instances:
        return self._rebuilt({name: function(value) for name, value in self._fields.items()})

    def _rebuilt(self, fields: dict[str, Any]) -> Instances:
        result = type(self)(self._image_size)
        result._fields = fields
        return result

    def __copy__(self) -> Instances:
        return self._rebuilt(dict(self._fields))

    def __getitem__(self, item: int | slice | Tensor | Sequence[int]) -> Instances:
        """Select objects from every field.

        Args:
            item: an int (one object, as ``Instances`` of length 1), a slice, a bool mask or integer indices.

        Raises:
            IndexError: if an int is out of range.
        """
        if isinstance(item, Tensor) and item.ndim == 0 and item.dtype != torch.bool:
            item = int(item)
        if isinstance(item, int):
            length = len(self)
            if not -length <= item < length:
                raise IndexError(f"Instances: index {item} is out of range for {length} objects")
            item = slice(item % length, item % length + 1)
        return self._mapped(lambda value: _select(value, item))

    def __len__(self) -> int:
        for name, value in self._fields.items():
            return _length(name, value)
        raise NotImplementedError("Instances without any field has no length")

    def __iter__(self) -> Iterator[Instances]:
        raise TypeError("Instances cannot be iterated over; index it, or iterate over one of its fields")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """Concatenate the objects of several instances with one image size and the same fields.

        Raises:
            TypeError: if an element is not ``Instances``, or a field cannot be concatenated.
            ValueError: if the list is empty, or if image sizes or field names differ. (The reference silently drops
                the fields that its first element lacks.)
        """
        if len(instance_lists) == 0:
            raise ValueError("Instances.cat takes at least one Instances, got none")
        for instances in instance_lists:
            if not isinstance(instances, Instances):
                raise TypeError(
                    f"Instances.cat takes a sequence of Instances, got a {type(instances).__name__} in it"
                )
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        for other in instance_lists[1:]:
            if other.image_size != first.image_size:
                raise ValueError(
                    f"Instances.cat: image sizes differ: {first.image_size} and {other.image_size}"
                )
            if other._fields.keys() != first._fields.keys():
                raise ValueError(
                    f"Instances.cat: fields differ: {list(first._fields)} and {list(other._fields)}"
                )
        joined = {
            name: _join(name, [instances.get(name) for instances in instance_lists]) for name in first._fields
        }
        return first._rebuilt(joined)

    def __repr__(self) -> str:
        height, width = self._image_size
        count = len(self) if self._fields else 0
        fields = "".join(f", {name}: {value!r}" for name, value in self._fields.items())
        return f"Instances({count} objects, image {height} x {width}{fields})"


def _as_size(image_size: Sequence[int] | Tensor) -> tuple[int, int]:
    if isinstance(image_size, Tensor):
        image_size = image_size.tolist()
    size = tuple(image_size)
    if len(size) != 2:
        raise ValueError(f"image_size must be (h, w), got {image_size!r}")
    return size


def _length(name: str, value: Any) -> int:
    try:
        return value.shape[0] if isinstance(value, Tensor) else len(value)
    except (TypeError, IndexError):
        raise TypeError(f"Instances: field {name!r} must have a length, got {type(value).__name__}") from None


def _select(value: Any, item: slice | Tensor | Sequence[int]) -> Any:
    if not isinstance(value, list | tuple) or isinstance(item, slice):
        return value[item]
    index = torch.as_tensor(item)
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    return type(value)(value[i] for i in index.tolist())


def _join(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values, dim=0)
    if isinstance(first, list | tuple):
        return type(first)(itertools.chain.from_iterable(values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise TypeError(f"Instances.cat: field {name!r} of type {type(first).__name__} cannot be concatenated")


# Pytree: the field values are children; the image size and the field names are context.


def _flatten(instances: Instances) -> tuple[list[Any], tuple[tuple[int, int], tuple[str, ...]]]:
    return list(instances._fields.values()), (instances._image_size, tuple(instances._fields))


def _flatten_with_keys(instances: Instances) -> tuple[list[tuple[Any, Any]], Any]:
    children, context = _flatten(instances)
    return [(pytree.GetAttrKey(name), child) for name, child in zip(context[1], children)], context


def _unflatten(children: Iterable[Any], context: Any) -> Instances:
    image_size, names = context
    instances = Instances(image_size)
    instances._fields = dict(zip(names, children))
    return instances


def _load_context(text: str) -> tuple[tuple[int, int], tuple[str, ...]]:
    image_size, names = json.loads(text)
    return tuple(image_size), tuple(names)


pytree.register_pytree_node(
    Instances,
    _flatten,
    _unflatten,
    serialized_type_name="hydet.structures.Instances",
    flatten_with_keys_fn=_flatten_with_keys,
    to_dumpable_context=json.dumps,
    from_dumpable_context=_load_context,
)
