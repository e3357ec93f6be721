"""``model.KEY=VALUE`` and ``augment.KEY=VALUE`` on a command line whose model comes from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydet.config import ConfigError
from hydet.runs.changes import CHANGEABLE

__all__ = ["collect_overrides"]

# Sections that only training reads, or that the stored model already contains.
_WITHOUT_EFFECT = ("backbone", "callbacks", "logger", "optimizer", "preset", "schedule", "size", "trainer")


def collect_overrides(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``+changes.model.a.b=1`` in place of ``model.a.b=1``.

    Hydra would look up the key in the command's own config, which does not contain the checkpoint's. The values below
    ``changes`` are merged into the checkpoint's config when it is read (``open_checkpoint``).

    Raises:
        ConfigError: for another model or another option that a checkpoint fixes, because it would have no effect.
    """
    collected = []
    for argument in arguments:
        match = re.fullmatch(r"(\+{0,2}|~)([A-Za-z_]\w*)([./@=].*)", argument, flags=re.DOTALL)
        if match is None or match[2] not in (*CHANGEABLE, *_WITHOUT_EFFECT):
            collected.append(argument)
            continue
        sign, root, rest = match.groups()
        if root not in CHANGEABLE or not rest.startswith(".") or sign == "~":
            sections = " and ".join(f"{name}.KEY=VALUE" for name in CHANGEABLE)
            raise ConfigError(
                f"{argument}: the checkpoint fixes this; only values of its config can be replaced, with {sections}"
            )
        collected.append(f"+changes.{root}{rest}")
    return collected
