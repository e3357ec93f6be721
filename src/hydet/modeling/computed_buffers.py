"""Buffers outside the state dict whose values a module computes from its arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["ComputedBuffers"]


class ComputedBuffers(nn.Module, ABC):
    """Base class of modules with buffers that are computed again when they have lost their values.

    ``to_empty`` leaves arbitrary numbers in every buffer, and a state dict restores only those that it contains.
    Subclasses call ``register_computed_buffers`` or, for buffers of a child, ``track_computed_buffers`` once, at the
    end of their constructor.
    """

    _computed_names: tuple[str, ...] = ()

    @abstractmethod
    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return the values of the buffers by name, as they are after construction."""

    def register_computed_buffers(self) -> None:
        """Register the buffers, outside the state dict."""
        values = self.computed_buffers()
        for name, value in values.items():
            self.register_buffer(name, value, persistent=False)
        self.track_computed_buffers(values)

    def track_computed_buffers(self, names: Iterable[str]) -> None:
        """Compute these buffers again when they have lost their values. A second call replaces the names of the first.

        Args:
            names: names of registered buffers, such as ``pixel_mean`` or ``model.blocks.0.index``.
        """
        if not self._computed_names:
            self.register_load_state_dict_post_hook(_leave_meta_device)
        self._computed_names = tuple(names)

    def reset_computed_buffers(self, device: torch.device | None = None) -> None:
        """Compute the buffers again, in their present dtypes.

        Args:
            device: device of the new values; by default that of each buffer.
        """
        with torch.device("cpu"):  # the caller may still be in the context of the meta device
            values = self.computed_buffers()
        for name, value in values.items():
            old = self.get_buffer(name)
            path, _, attribute = name.rpartition(".")
            new = value.to(device=old.device if device is None else device, dtype=old.dtype)
            setattr(self.get_submodule(path), attribute, new)

    def to_empty(self, *, device: str | torch.device | int | None, recurse: bool = True) -> ComputedBuffers:
        """Move the module to a device without copying values, except those of computed buffers."""
        # Modules that are on the meta device now compute their buffers when they leave it, in ``_apply``.
        others = [m for m in (self.modules() if recurse else [self]) if _has_values(m)]
        super().to_empty(device=device, recurse=recurse)
        for module in others:
            if isinstance(module, ComputedBuffers) and _has_values(module):
                module.reset_computed_buffers()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # A parent's ``to_empty`` arrives here.
        had_values = _has_values(self)
        super()._apply(fn, recurse)
        if not had_values and _has_values(self):
            self.reset_computed_buffers()
        return self


def _has_values(module: nn.Module) -> bool:
    """Return True unless a computed buffer of this module is on the meta device."""
    return not isinstance(module, ComputedBuffers) or not any(
        module.get_buffer(name).is_meta for name in module._computed_names
    )


def _leave_meta_device(module: nn.Module, incompatible_keys: object) -> None:
    """Compute meta buffers on the device of the weights that ``load_state_dict(assign=True)`` has assigned."""
    device = next((p.device for p in module.parameters() if not p.is_meta), None)
    if device is None:
        return
    for child in module.modules():
        if isinstance(child, ComputedBuffers) and not _has_values(child):
            child.reset_computed_buffers(device)
