"""Objects beside the weights in files of torch, in whose place values that do nothing are read."""

from __future__ import annotations

from collections.abc import Callable

from hydet.data.proposals.array_pickle import NUMPY_STAND_INS

__all__ = ["DroppedValue", "dropped_values"]

# Classes whose objects training programs store beside the weights: arguments, paths, and the logs of mmengine.
_CLASSES = (
    "argparse.Namespace",
    *(
        f"{module}.{kind}Path"
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "Windows", "PurePosix", "PureWindows")
    ),
    "mmengine.logging.history_buffer.HistoryBuffer",
)


class DroppedValue:
    """Replaces an object of a class in ``_CLASSES``; keeps nothing of it."""

    __slots__ = ()

    def __new__(cls, *arguments: object) -> DroppedValue:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""


def _get_method(owner: object, name: object) -> DroppedValue:
    """Replace ``getattr``, by which pickles refer to a method of a class."""
    if owner is not DroppedValue or not isinstance(name, str):
        raise ValueError("it calls getattr, which was not run")
    return DroppedValue()


def dropped_values() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """Return the stand-ins and the names they replace, as arguments of ``torch.serialization.safe_globals``.

    Stand-ins for scalars and arrays of NumPy return numbers and arrays (see ``to_array``).
    """
    classes = [(DroppedValue, name) for name in _CLASSES]
    arrays = [(stand_in, name) for name, stand_in in NUMPY_STAND_INS.items()]
    return [*classes, *arrays, (_get_method, "builtins.getattr")]
