"""Find the checkpoints of a run, and open the one that a path stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from hydet.files import replaced_folders, set_aside

from .checkpoint_folder import METADATA, Checkpoint, read_checkpoint
from .folder_links import link_target

__all__ = [
    "LINKS",
    "StepFolder",
    "VerifyHashes",
    "find_checkpoint_to_resume",
    "find_last_checkpoint",
    "list_checkpoints",
    "list_step_folders",
    "load_checkpoint",
    "restore_replaced_checkpoints",
    "verifies_hashes",
]

LAST, BEST = "last", "best"
LINKS = (LAST, BEST)
_STEP_NAME = re.compile(r"step_(?P<step>\d+)")

# "full" (True): compare the hash of a file before it is read. "off" (False): only compare sizes.
VerifyHashes: TypeAlias = bool | Literal["full", "off"]


@dataclass(frozen=True)
class StepFolder:
    """A folder ``step_<n>``, complete or not.

    Attributes:
        path: where it is.
        usual_path: where it belongs; differs from ``path`` if a process died while it replaced the folder.
        step: number of optimizer steps; -1 if neither the metadata nor the name says it.
        checkpoint: the checkpoint, or None if it is not complete.
        fault: why it is not complete, or None.
    """

    path: Path
    usual_path: Path
    step: int
    checkpoint: Checkpoint | None
    fault: str | None


def verifies_hashes(verify: VerifyHashes) -> bool:
    """Return True for ``"full"`` and True, and False for ``"off"`` and False.

    Raises:
        ValueError: for any other value.
    """
    if verify not in (True, False, "full", "off"):
        raise ValueError(f"verify must be full or off, got {verify!r}")
    return verify in (True, "full")


def load_checkpoint(path: str | Path, *, verify: VerifyHashes = True) -> Checkpoint:
    """Open the checkpoint at ``path``.

    Args:
        path: a checkpoint folder, or a link such as ``checkpoints/best``. The link ``checkpoints/last``, the
            ``checkpoints`` folder and the output folder of a run stand for the newest checkpoint of the run.
        verify: ``"full"`` or True compares the hash of each file with that in the metadata before it is read;
            ``"off"`` or False saves this time, and a changed byte in the weights is then loaded without an error.

    Raises:
        FileNotFoundError: if ``path`` does not exist or holds no checkpoint.
        ValueError: if the checkpoint is not complete; the message says what is wrong.
    """
    path, verify = Path(path), verifies_hashes(verify)
    run = _run_folder_of(path)
    if run is not None:
        last = find_last_checkpoint(run)
        if last is not None:
            return read_checkpoint(last, verify=verify)
    may_be_link = path.is_symlink() or path.name in LINKS
    folder = (link_target(path) if may_be_link else None) or path
    if not folder.exists():
        folder = replaced_folders(folder.parent).get(folder, folder)
    if not folder.exists():
        raise FileNotFoundError(f"checkpoint {path}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"checkpoint {path} is a file; expected a checkpoint folder with {METADATA}")
    if not (folder / METADATA).is_file():
        faults = [f.fault for f in list_step_folders(folder) if f.fault is not None]
        reason = f"no complete checkpoint: {faults[-1]}" if faults else "no checkpoint"
        raise FileNotFoundError(f"{path} is not a checkpoint ({METADATA} is missing) and contains {reason}")
    return read_checkpoint(folder, verify=verify)


def find_last_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest complete checkpoint of a run.

    Args:
        output_dir: output folder of the run, or its ``checkpoints`` folder.

    Returns:
        Path of the checkpoint, or None. Unfinished and damaged checkpoints are skipped.
    """
    # Not the link "last": a process that is killed before it updates the link leaves it one checkpoint behind.
    complete = list_checkpoints(output_dir)
    return complete[-1].path if complete else None


def list_checkpoints(output_dir: str | Path) -> list[Checkpoint]:
    """Return the complete checkpoints of a run in order of their steps; clocks can go back, steps cannot."""
    folders = list_step_folders(output_dir)
    # A folder and its complete replacement are one checkpoint; the replacement comes later in the list.
    complete = {folder.usual_path: folder.checkpoint for folder in folders if folder.checkpoint is not None}
    return list(complete.values())


def list_step_folders(output_dir: str | Path) -> list[StepFolder]:
    """Return the folders of all checkpoints of a run, complete or not, in order of their steps."""
    parent = _checkpoints_folder(Path(output_dir))
    usual_paths = {path: path for path in parent.glob("step_*") if path.is_dir()}
    replaced = {path: usual_path for usual_path, path in replaced_folders(parent).items()}
    folders = [_step_folder(path, usual_path) for path, usual_path in (replaced | usual_paths).items()]
    return sorted(folders, key=lambda folder: (folder.step, folder.path == folder.usual_path))


def _step_folder(path: Path, usual_path: Path) -> StepFolder:
    try:
        checkpoint = read_checkpoint(path)
    except (OSError, ValueError) as error:
        match = _STEP_NAME.fullmatch(usual_path.name)
        return StepFolder(path, usual_path, int(match["step"]) if match else -1, None, str(error))
    return StepFolder(path, usual_path, checkpoint.step, checkpoint, None)


def find_checkpoint_to_resume(
    resume: bool | str | Path | None,
    output_dir: str | Path,
    *,
    verify: VerifyHashes = True,
    report: Callable[[str], None] | None = None,
) -> Checkpoint | None:
    """Return the checkpoint from which a run continues, or None if it starts anew.

    Args:
        resume: ``"auto"`` or True stands for the last intact checkpoint in ``output_dir``, if there is one; a path for
            that checkpoint, or for the last intact one of the run to which the path leads; False or None for a new run.
        output_dir: output folder of the run.
        verify: see ``load_checkpoint``. Without this, a checkpoint with changed bytes counts as intact.
        report: receives one line for each later checkpoint that is damaged.

    Raises:
        FileNotFoundError: if a path does not exist or holds no checkpoint.
        ValueError: if the checkpoint is not complete, or all checkpoints of the run are damaged.
    """
    if resume is False or resume is None:
        return None
    verify = verifies_hashes(verify)
    if resume is True or resume == "auto":
        return _last_intact_checkpoint(Path(output_dir), verify, report)
    run = _run_folder_of(Path(resume))
    checkpoint = _last_intact_checkpoint(run, verify, report) if run is not None else None
    return checkpoint if checkpoint is not None else load_checkpoint(resume, verify=verify)


def _last_intact_checkpoint(
    output_dir: Path, verify: bool, report: Callable[[str], None] | None
) -> Checkpoint | None:
    faults: list[str] = []
    # Unlike find_last_checkpoint, this reads every byte, and says which checkpoints it passes over.
    for folder in reversed(list_step_folders(output_dir)):
        try:
            if folder.checkpoint is None:
                raise ValueError(folder.fault)
            checkpoint = replace(folder.checkpoint, verify=verify)
            checkpoint.verify_files()
        except (OSError, ValueError) as error:
            faults.append(str(error))
            continue
        if report is not None:
            for fault in faults:
                report(f"{fault}; continuing from {folder.path}")
        return replace(checkpoint, verify=False)  # its bytes have just been compared
    if faults:
        raise ValueError(
            f"no checkpoint in {_checkpoints_folder(output_dir)} is intact: {faults[0]}; another output_dir, or moving "
            "this folder away, starts a new run"
        )
    return None


def restore_replaced_checkpoints(output_dir: str | Path) -> None:
    """Give checkpoints that were being replaced when their process died their names back.

    Where the new folder is complete, the old one stays under its other name. Only the process that writes to the folder
    may call this function.
    """
    for folder in list_step_folders(output_dir):
        if folder.path == folder.usual_path or folder.checkpoint is None:
            continue
        new = _step_folder(folder.usual_path, folder.usual_path)
        if new.checkpoint is None:
            if new.path.exists():
                set_aside(new.path)
            os.rename(folder.path, folder.usual_path)


def _run_folder_of(path: Path) -> Path | None:
    """Return the folder of checkpoints for whose newest one ``path`` stands, or None."""
    # A link can lag behind the newest checkpoint, and in a copy of a run it can be a folder or missing.
    parent = path.parent if path.name == LAST else path
    is_checkpoint = parent is path and (path / METADATA).is_file()
    return None if is_checkpoint or not list_step_folders(parent) else parent


def _checkpoints_folder(path: Path) -> Path:
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path
