"""``model.…=`` and ``augment.…=`` on a command line whose model comes from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydet.config import ConfigError

__all__ = ["CHANGEABLE", "collect_overrides"]

# Sections of a checkpoint's config of which a command line may replace values.
CHANGEABLE = ("model", "augment")
# What only training asks for, or what has gone into the stored model already.
_WITHOUT_EFFECT = ("backbone", "callbacks", "logger", "optimizer", "schedule", "size", "trainer")


def collect_overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``model.a.b=1`` as ``+changes.model.a.b=1``.

    Hydra would look the key up in the command's own config, which knows nothing of the checkpoint; what is collected
    below ``changes`` is merged into the checkpoint's config once that is read (``open_checkpoint``).

    Raises:
        ConfigError: for another model or another option of what a checkpoint settles, as that would have no effect.
    """
    kept = []
    for argument in arguments:
        found = re.fullmatch(r"(\+{0,2}|~)([A-Za-z_]\w*)([./@=].*)", argument, flags=re.DOTALL)
        if found is None or found[2] not in (*CHANGEABLE, *_WITHOUT_EFFECT):
            kept.append(argument)
            continue
        sign, root, rest = found.groups()
        if root not in CHANGEABLE or not rest.startswith(".") or sign == "~":
            sections = " and ".join(f"{name}.KEY=VALUE" for name in CHANGEABLE)
            raise ConfigError(
                f"{argument}: the checkpoint settles this; of its config only values can be replaced, with {sections}"
            )
        kept.append(f"+changes.{root}{rest}")
    return kept
