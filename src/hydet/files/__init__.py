"""Writing files, complete or not at all, with errors that name the file; and reading of pickles without their code."""

from .atomic_writes import (
    atomic_file,
    atomic_folder,
    discard_folder,
    flush_to_disk,
    remove_leftovers,
    replaced_folders,
    set_aside,
    unfinished_path,
    write_atomically,
)
from .write_errors import WriteError, is_write_error, naming_write_errors

__all__ = [
    "WriteError",
    "atomic_file",
    "atomic_folder",
    "discard_folder",
    "flush_to_disk",
    "is_write_error",
    "naming_write_errors",
    "remove_leftovers",
    "replaced_folders",
    "set_aside",
    "unfinished_path",
    "write_atomically",
]
