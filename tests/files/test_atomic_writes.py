import fcntl
import os
import stat

import pytest

from hydet.files import (
    WriteError,
    atomic_file,
    atomic_folder,
    discard_folder,
    flush_to_disk,
    remove_leftovers,
    replaced_folders,
    set_aside,
    write_atomically,
)


def test_a_folder_appears_complete(tmp_path):
    with atomic_folder(tmp_path / "a" / "b") as folder:
        (folder / "file.txt").write_text("x", encoding="utf-8")
        assert not (tmp_path / "a" / "b").exists()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file.txt"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_an_existing_folder_is_replaced_only_after_success(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
        raise RuntimeError
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["old"]
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "new"]


def test_a_text_file_keeps_its_old_state_after_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_text_is_utf8_with_unix_newlines_on_every_system(tmp_path):
    write_atomically(tmp_path / "a.txt", "Käse\n")
    assert (tmp_path / "a.txt").read_bytes() == "Käse\n".encode()


def test_files_are_flushed_through_a_descriptor_that_can_write(tmp_path, monkeypatch):
    """Windows raises an error for a read-only descriptor."""
    flushed = []

    def fsync(descriptor):
        can_write = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not is_folder and not can_write:
            raise OSError(9, "Bad file descriptor")
        flushed.append(is_folder)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "file").write_text("x", encoding="utf-8")
    write_atomically(tmp_path / "b", "x")
    assert flushed.count(False) == 2 and flushed.count(True) == 3


def test_systems_that_cannot_open_or_flush_folders(tmp_path, monkeypatch):
    real_open, real_fsync = os.open, os.fsync

    def open_files_only(path, flags, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))  # as on Windows
        return real_open(path, flags, *args, **kwargs)

    def flush_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")  # as on some network file systems
        real_fsync(descriptor)

    for name, replacement in (("open", open_files_only), ("fsync", flush_files_only)):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, replacement)
            flush_to_disk(tmp_path)
            with atomic_folder(tmp_path / name) as folder:
                (folder / "file").write_text("x", encoding="utf-8")
            assert (tmp_path / name / "file").read_text(encoding="utf-8") == "x"


def test_a_file_that_cannot_be_flushed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(tmp_path / "a", "x")


def test_discarding_and_leftovers(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / ".unfinished-b-1").mkdir()
    (tmp_path / ".discarded-c-1").mkdir()
    (tmp_path / ".replaced-e-01234567").mkdir()
    (tmp_path / ".unfinished-d-1").touch()
    (tmp_path / "kept").mkdir()
    discard_folder(tmp_path / "a")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    remove_leftovers(tmp_path / "does not exist")


def test_a_folder_with_an_open_file_stays(tmp_path, monkeypatch):
    """Windows does not rename a folder while a process reads one of its files."""
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "in use")))
        discard_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()
    discard_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_file_that_a_library_writes_appears_complete(tmp_path):
    path = tmp_path / "a" / "photo.png"
    with atomic_file(path, flush=False) as unfinished:
        unfinished.write_bytes(b"pixels")
        assert not path.exists()
    assert path.read_bytes() == b"pixels" and [p.name for p in path.parent.iterdir()] == ["photo.png"]
    with pytest.raises(RuntimeError), atomic_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"pixels" and [p.name for p in path.parent.iterdir()] == ["photo.png"]


def test_long_file_names_leave_room_for_the_temporary_one(tmp_path):
    for name in ("x" * 251 + ".png", "犬" * 83 + ".png"):
        with atomic_file(tmp_path / name) as unfinished:
            unfinished.touch()
        assert (tmp_path / name).exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("rename", [0, 1])
def test_a_kill_between_the_renames_of_a_replacement_keeps_the_old_folder(rename, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "old").touch()
    real_rename, calls = os.rename, []

    def renaming(*paths):
        calls.append(paths)
        if len(calls) > rename:
            raise Killed
        real_rename(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", renaming)
        with pytest.raises(Killed), atomic_folder(folder) as new:
            (new / "new").touch()
    where = replaced_folders(tmp_path)
    assert where.keys() == ({folder} if rename else set())
    assert (where.get(folder, folder) / "old").exists()


def test_a_folder_that_cannot_be_renamed_into_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    real_rename, calls = os.rename, []

    def renaming(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real_rename(*paths)

    monkeypatch.setattr(os, "rename", renaming)
    with pytest.raises(WriteError, match=r"cannot write .*a: Input/output error"), atomic_folder(folder):
        pass
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_are_set_aside_under_names_that_nothing_has(tmp_path):
    for expected in ("set_aside_a", "set_aside_a-2", "set_aside_a-3"):
        (tmp_path / "a").mkdir()
        assert set_aside(tmp_path / "a").name == expected
    assert len(list(tmp_path.iterdir())) == 3
