"""Predictors of weights for other classes: rows of equal names are copied, the others keep their initialization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hydet.modeling import ClassRows, PredictsClasses

__all__ = ["ClassChange", "fit_class_layers"]

MAX_CLASSES = 5  # names in a message


@dataclass(frozen=True)
class ClassChange:
    """Predictors of a model whose classes differ from those of the weights.

    Attributes:
        in_file: number of classes of the weights.
        in_model: number of classes of the model.
        layers: names of the layers.
        copied: names of the classes whose rows were copied.
        tensors: names of the parameters of the layers.
    """

    in_file: int
    in_model: int
    layers: tuple[str, ...]
    copied: tuple[str, ...]
    tensors: tuple[str, ...]

    def __str__(self) -> str:
        numbers = f"{self.in_file} classes in the file, {self.in_model} in the model"
        if not self.copied:
            return f"predictors keep their initialization ({numbers}): {', '.join(self.layers)}"
        more = len(self.copied) - MAX_CLASSES
        names = ", ".join(self.copied[:MAX_CLASSES]) + (f" and {more} more" if more > 0 else "")
        return (
            f"predictors keep their initialization except {len(self.copied)} classes copied by name ({names}; {numbers}): "
            f"{', '.join(self.layers)}"
        )


def fit_class_layers(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    class_names: Sequence[str],
    file_class_names: Sequence[str],
) -> tuple[dict[str, Tensor], tuple[ClassChange, ...]]:
    """Fit the predictors in weights to the classes of a model.

    Layers with the numbers of classes of the model are changed only if classes of both have another position.

    Args:
        model: the model, which is not changed.
        weights: tensors by their names in the model.
        class_names: classes of the model, or none.
        file_class_names: classes of the weights, or none.

    Returns:
        The weights, where predictors for other classes have the shapes of the model if rows were copied and are left
        out otherwise; and the changes, one for each pair of numbers of classes.
    """
    state = model.state_dict()
    fitted = dict(weights)
    names = tuple(class_names), tuple(file_class_names)
    changes: dict[tuple[int, int, tuple[str, ...]], list[str]] = {}
    for layer, rows in _class_layers(model):
        tensors = [n for n in (f"{layer}.weight", f"{layer}.bias") if n in weights and n in state]
        count = _count_classes(rows, [(weights[n], state[n]) for n in tensors])
        if count is None:
            continue
        shared = _shared_classes(rows, count, *names)
        if count == rows.num_classes and all(i == k for i, k in shared.values()):
            continue
        for name in tensors:
            value = fitted.pop(name)
            if shared:
                fitted[name] = _copy_rows(value, state[name], rows, count, list(shared.values()))
        changes.setdefault((count, rows.num_classes, tuple(shared)), []).append(layer)
    return fitted, tuple(
        ClassChange(
            in_file,
            in_model,
            tuple(layers),
            copied,
            tuple(n for layer in layers for n in (f"{layer}.weight", f"{layer}.bias") if n in state),
        )
        for (in_file, in_model, copied), layers in changes.items()
    )


def _class_layers(model: nn.Module) -> Iterator[tuple[str, ClassRows]]:
    """Yield the layers that predict for each class, by name."""
    for prefix, module in model.named_modules():
        if isinstance(module, PredictsClasses):
            for name, rows in module.class_rows.items():
                yield f"{prefix}.{name}" if prefix else name, rows


def _count_classes(rows: ClassRows, pairs: Sequence[tuple[Tensor, Tensor]]) -> int | None:
    """Return the number of classes in the file if it explains the shapes of all tensors of a layer, else None."""
    counts = set()
    for in_file, in_model in pairs:
        if in_file.ndim == 0 or in_file.shape[1:] != in_model.shape[1:]:
            return None
        counts.add(rows.count_classes(in_file.shape[0]))
    return counts.pop() if len(counts) == 1 else None


def _shared_classes(
    rows: ClassRows, count: int, class_names: tuple[str, ...], file_class_names: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    """Return the positions in file and model of the classes that both have, by name."""
    if not rows.has_things or (len(file_class_names), len(class_names)) != (count, rows.num_classes):
        return {}
    positions = {name: i for i, name in enumerate(file_class_names)}
    return {name: (positions[name], k) for k, name in enumerate(class_names) if name in positions}


def _copy_rows(
    in_file: Tensor, in_model: Tensor, rows: ClassRows, count: int, pairs: Sequence[tuple[int, int]]
) -> Tensor:
    """Return the parameter of the model with the rows of some classes, and of background, from the file."""
    result = in_model.detach().clone().cpu()
    source = in_file.reshape(*rows.layout(count), *in_file.shape[1:])
    target = result.view(*rows.layout(rows.num_classes), *result.shape[1:])
    if rows.has_background:
        pairs = [*pairs, (count, rows.num_classes)]
    for i, k in pairs:
        target[:, k] = source[:, i].to(target.dtype)
    return result
