import os

import pytest

from hydet.engine.folder_links import link_folder, link_target


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return tmp_path


def refuse_symlinks(*_, **__):
    raise OSError("a required privilege is not held by the client")  # Windows without developer mode


def test_a_link_leads_to_the_latest_folder(folders):
    for name in ("a", "b"):
        link_folder(folders / "last", folders / name)
        assert link_target(folders / "last") == folders / name
    assert (folders / "last").is_symlink()
    assert os.readlink(folders / "last") == "b"  # relative, so that the parent folder can be moved
    assert sorted(p.name for p in folders.iterdir()) == ["a", "b", "last"]


def test_a_text_file_replaces_the_link_where_links_are_not_allowed(folders, monkeypatch):
    link_folder(folders / "last", folders / "a")
    monkeypatch.setattr(os, "symlink", refuse_symlinks)
    for name in ("b", "a"):
        link_folder(folders / "last", folders / name)
        assert not (folders / "last").is_symlink()
        assert link_target(folders / "last") == folders / name
    assert sorted(p.name for p in folders.iterdir()) == ["a", "b", "last"]


def test_a_link_replaces_the_text_file(folders, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", refuse_symlinks)
        link_folder(folders / "last", folders / "a")
    link_folder(folders / "last", folders / "b")
    assert (folders / "last").is_symlink() and link_target(folders / "last") == folders / "b"


def test_systems_that_do_not_replace_a_link_to_a_folder(folders, monkeypatch):
    real_replace = os.replace

    def replace(source, target):
        if os.path.isdir(target):
            raise PermissionError(5, "Access is denied")  # as on Windows
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    for name in ("a", "b"):
        link_folder(folders / "last", folders / name)
        assert link_target(folders / "last") == folders / name
    monkeypatch.setattr(os, "symlink", refuse_symlinks)
    link_folder(folders / "last", folders / "a")
    assert link_target(folders / "last") == folders / "a"


def test_there_may_be_no_link(tmp_path):
    assert link_target(tmp_path / "last") is None
