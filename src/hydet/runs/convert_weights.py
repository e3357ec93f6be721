"""Write weights from elsewhere as a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydet.config import ConfigError
from hydet.engine import Checkpoint, LoadReport, save_checkpoint
from hydet.interop import find_weights

from .build import plain
from .open_weights import open_weights

__all__ = ["convert_weights"]


def convert_weights(
    source: str | Path, folder: str | Path, *, overrides: Sequence[str] = (), allowed: Sequence[str] = ()
) -> tuple[Checkpoint, LoadReport]:
    """Write weights as a checkpoint that evaluate and predict accept, with its config and class names.

    Args:
        source: see ``open_weights``.
        folder: the checkpoint to write; must not exist.
        overrides: see ``open_weights``.
        allowed: see ``open_weights``.

    Returns:
        The checkpoint, and the report of the weights in it.

    Raises:
        ConfigError: if ``folder`` exists, or ``source`` is a folder.
        ValueError: see ``open_weights``.
        WriteError: if writing fails; nothing of the new checkpoint then remains.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name another folder for the checkpoint")
    if find_weights(source).is_dir():
        raise ConfigError(f"{source} is a folder; a checkpoint of hydet needs no conversion")
    detector = open_weights(source, overrides=overrides, allowed=allowed, device="cpu")
    assert detector.report is not None  # open_weights loads a file
    checkpoint = save_checkpoint(
        folder,
        weights=detector.model.state_dict(),
        training_state={"step": 0},
        config=plain(detector.config),
        metadata={
            "step": 0,
            "max_steps": 0,
            "metrics": {},
            "dataset": detector.metadata.to_dict(),
            "source": str(source),
        },
    )
    return checkpoint, detector.report
