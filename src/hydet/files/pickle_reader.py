"""A reader of pickles that builds plain values only, and leaves every name in a pickle to its subclass."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

__all__ = ["PickleReader"]

_MARK = object()  # start of a container on the stack
# Opcodes whose argument is the value. Strings of Python 2 are decoded as Latin-1.
_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# The hash of a tuple visits all its items, an item that occurs twice two times: 60 nested tuples take forever.
_MAX_KEY_ITEMS = 1000
_MAX_NAME = 200  # characters; torch searches its own messages for names, in quadratic time


class PickleReader:
    """Read one pickle without running anything in it.

    Unlike ``pickle.Unpickler``, it imports nothing, sets no attributes, hashes no large keys, calls nothing but what
    ``find_class`` returns, and allocates no more than the stream holds.

    Args:
        stream: the content, which may go on behind the pickle.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._stack: list[Any] = []
        self._memo: dict[int, object] = {}
        self._callables: dict[int, Callable[..., object]] = {}  # by id

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Return what stands for a name in the pickle, or raise an error."""
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which was not run")

    def persistent_load(self, pid: object) -> object:
        """Return what stands for an object outside of the pickle, or raise an error."""
        raise pickle.UnpicklingError("it refers to an object outside of the file")

    def load(self) -> Any:
        """Read the pickle, and leave the stream behind it.

        Raises:
            Exception: of any kind, if the pickle is broken or refers to anything that ``find_class`` refuses.
        """
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
            name = opcode.name
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                # Other readers of the same file allocate a table up to the largest number.
                index = int(argument or 0)
                if not 0 <= index <= number:
                    raise pickle.UnpicklingError(f"opcode {number} stores object number {index}")
                self._memo[index] = self._stack[-1]
            elif name not in ("PROTO", "FRAME", "STOP"):
                self._run(name, argument)
        return self._stack.pop()

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[int(argument)])
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(set())
            case "LIST":
                stack.append(self._pop_to_mark())
            case "DICT":
                stack.append(dict(_pairs(self._pop_to_mark())))
            case "FROZENSET":
                stack.append(frozenset(_checked_keys(self._pop_to_mark())))
            case "APPEND":
                value = stack.pop()
                self._container(list).append(value)
            case "APPENDS":
                values = self._pop_to_mark()
                self._container(list).extend(values)
            case "SETITEM":
                pair = (stack.pop(-2), stack.pop())
                self._container(dict).update(_pairs(pair))
            case "SETITEMS":
                values = self._pop_to_mark()
                self._container(dict).update(_pairs(values))
            case "ADDITEMS":
                values = self._pop_to_mark()
                self._container(set).update(_checked_keys(values))
            case "GLOBAL":
                self._find(*argument.split(" ", 1))  # genops joins the two lines
            case "STACK_GLOBAL":
                self._find(stack.pop(-2), stack.pop())
            case "REDUCE" | "NEWOBJ":
                self._call(stack.pop(-2), stack.pop())
            case "BUILD":
                self._set_state(stack.pop())
            case "PERSID":
                stack.append(self.persistent_load(argument))
            case "BINPERSID":
                stack.append(self.persistent_load(stack.pop()))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._pop_to_mark()
            case "DUP":
                stack.append(stack[-1])
            case _:
                raise pickle.UnpicklingError(f"it holds an object of the kind {name}")

    def _pop_to_mark(self) -> list[Any]:
        position = len(self._stack) - 1
        while position >= 0 and self._stack[position] is not _MARK:
            position -= 1
        if position < 0:
            raise pickle.UnpicklingError("a container has no start")
        items = self._stack[position + 1 :]
        del self._stack[position:]
        return items

    def _container(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise pickle.UnpicklingError(
                f"it adds items to a {type(self._stack[-1]).__name__}, not a {kind.__name__}"
            )
        return self._stack[-1]

    def _find(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name is not text")
        if len(module) + len(name) > _MAX_NAME:
            raise pickle.UnpicklingError(f"a name has {len(module) + len(name)} characters")
        result = self.find_class(module, name)
        self._callables[id(result)] = result
        self._stack.append(result)

    def _call(self, function: object, arguments: object) -> None:
        known = self._callables.get(id(function))
        if known is None or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls a value")
        self._stack.append(known(*arguments))

    def _set_state(self, state: object) -> None:
        """Restore a stand-in. Attributes of dicts, which torch gives to state dicts, are left out."""
        target = self._stack[-1]
        if id(target) in self._callables:
            raise pickle.UnpicklingError("it changes a function")
        restore = getattr(target, "__setstate__", None)  # as any class may define it
        if restore is not None:
            restore(state)
        elif not isinstance(target, dict):
            raise pickle.UnpicklingError(f"it changes a {type(target).__name__}")


def _pairs(items: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(_checked_keys(items[::2]), items[1::2], strict=True)


def _checked_keys(keys: Sequence[Any]) -> Sequence[Any]:
    """Return keys whose hash takes little time.

    Raises:
        pickle.UnpicklingError: if one has too many items.
    """
    for key in keys:
        if isinstance(key, tuple):
            _count_items(key, 0)
    return keys


def _count_items(key: tuple[Any, ...], count: int) -> int:
    for item in key:
        count += 1
        if count > _MAX_KEY_ITEMS:
            raise pickle.UnpicklingError(f"a key has more than {_MAX_KEY_ITEMS} items")
        if isinstance(item, tuple):
            count = _count_items(item, count)
    return count
