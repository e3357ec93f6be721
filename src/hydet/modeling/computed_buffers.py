"""Buffers outside the state dict whose values a module computes from its arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["ComputedBuffers"]


class ComputedBuffers(nn.Module, ABC):
    """Base class of modules with buffers that are computed again when they have lost their values.

    ``to_empty`` leaves arbitrary numbers in every buffer, and a state dict restores only those that it contains.
    Subclasses call ``register_computed_buffers`` once, at the end of their constructor.
    """

    @abstractmethod
    def computed_buffers(self) -> Mapping[str, Tensor]:
        """Return the values of the buffers by name, as they are after construction."""

    def register_computed_buffers(self) -> None:
        """Register the buffers, outside the state dict."""
        for name, value in self.computed_buffers().items():
            self.register_buffer(name, value, persistent=False)
        self.register_load_state_dict_post_hook(_leave_meta_device)

    def reset_computed_buffers(self, device: torch.device | None = None) -> None:
        """Compute the buffers again, in their present dtypes.

        Args:
            device: device of the new values; by default that of each buffer.
        """
        for name, value in self.computed_buffers().items():
            old = self.get_buffer(name)
            setattr(self, name, value.to(device=old.device if device is None else device, dtype=old.dtype))

    def to_empty(self, *, device: str | torch.device | int | None, recurse: bool = True) -> ComputedBuffers:
        """Move the module to a device without copying values, except those of computed buffers."""
        super().to_empty(device=device, recurse=recurse)
        for module in self.modules() if recurse else [self]:
            if isinstance(module, ComputedBuffers):
                module.reset_computed_buffers()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # A parent's ``to_empty`` arrives here.
        names = list(self.computed_buffers())
        was_meta = any(self.get_buffer(name).is_meta for name in names)
        super()._apply(fn, recurse)
        if was_meta and not any(self.get_buffer(name).is_meta for name in names):
            self.reset_computed_buffers()
        return self


def _leave_meta_device(module: nn.Module, incompatible_keys: object) -> None:
    """Compute meta buffers on the device of the weights that ``load_state_dict(assign=True)`` has assigned."""
    device = next((p.device for p in module.parameters() if not p.is_meta), None)
    if device is None:
        return
    for child in module.modules():
        if isinstance(child, ComputedBuffers) and any(
            child.get_buffer(name).is_meta for name in child.computed_buffers()
        ):
            child.reset_computed_buffers(device)
