import errno
import os
import pickle

import pytest
import torch

from hydet.engine import save_checkpoint
from hydet.files import WriteError, is_write_error, naming_write_errors, write_atomically


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, ["No space left on device", "df -i"]),
        (errno.EDQUOT, ["quota exceeded", "`quota`"]),
        (errno.EFBIG, ["File too large", "ulimit -f"]),
        (errno.EROFS, ["Read-only file system", "another output_dir"]),
        (errno.ENOENT, ["No such file or directory"]),
    ],
)
def test_an_error_of_a_stream_gets_the_name_of_its_file(number, words):
    with pytest.raises(WriteError) as raised, naming_write_errors("runs/a/log.txt"):
        raise OSError(number, os.strerror(number))
    line = str(raised.value)
    assert line.startswith("cannot write runs/a/log.txt: ") and "\n" not in line
    assert all(word in line for word in words)
    assert raised.value.errno == number and is_write_error(raised.value)


def test_the_innermost_name_stays():
    outer, inner = naming_write_errors("outer"), naming_write_errors("inner")
    with pytest.raises(WriteError, match="cannot write inner"), outer, inner:
        raise OSError(errno.ENOSPC, "full")


def test_errors_of_torch_and_safetensors_are_recognized():
    with pytest.raises(WriteError, match="File too large"), naming_write_errors("a"):
        raise Exception("Error while serializing: I/O error: File too large (os error 27)")
    with pytest.raises(WriteError, match="full"), naming_write_errors("a"):
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904  # torch does not name the cause either


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("y"), OSError("without a number"), KeyboardInterrupt()]
)
def test_other_errors_pass_through(error):
    with pytest.raises(type(error)) as raised, naming_write_errors("a"):
        raise error
    assert raised.value is error


def test_only_errors_of_writing_count_as_such():
    assert is_write_error(OSError(errno.ENOSPC, "full"))
    assert not is_write_error(FileNotFoundError(errno.ENOENT, "missing", "photo.jpg"))
    assert not is_write_error(ValueError())


def test_consequences_end_the_line_and_survive_pickling():
    error = WriteError(errno.EIO, "Input/output error", "a")
    error.consequences.append("resume=auto continues")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "cannot write a: Input/output error; resume=auto continues"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text", None),
        ("checkpoint", {"weights": {"w": torch.zeros(100_000)}}),
        ("checkpoint", {"training_state": {"s": torch.zeros(100_000)}}),
        ("checkpoint", {"config": {"names": ["x" * 1000] * 200}}),
    ],
)
def test_a_real_limit_of_the_file_size_leaves_nothing_behind(name, content, limit_file_size, tmp_path):
    """Text, safetensors and torch report the same limit in three ways."""
    with pytest.raises(WriteError) as raised, limit_file_size(100_000):
        if content is None:
            write_atomically(tmp_path / name, "x" * 200_000)
        else:
            save_checkpoint(
                tmp_path / name, **{"weights": {}, "training_state": {}, "metadata": {"step": 1}, **content}
            )
    assert str(raised.value).startswith(f"cannot write {tmp_path / name}: File too large (`ulimit -f`")
    assert list(tmp_path.iterdir()) == []
