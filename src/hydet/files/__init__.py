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
from .hashing import hash_file
from .json_files import read_json
from .write_errors import WriteError, is_write_error, naming_write_errors

__all__ = [
    "WriteError",
    "atomic_file",
    "atomic_folder",
    "discard_folder",
    "flush_to_disk",
    "hash_file",
    "is_write_error",
    "naming_write_errors",
    "read_json",
    "remove_leftovers",
    "replaced_folders",
    "set_aside",
    "unfinished_path",
    "write_atomically",
]
