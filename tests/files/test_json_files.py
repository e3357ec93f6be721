"""Reading of JSON files that may be damaged."""

import pytest

from hydet.files import json_files, read_json


def test_content_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"name": ["é", 1]}', encoding="utf-8")
    assert read_json(path) == {"name": ["é", 1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"{", "Expecting"), (b"\xff", "decode"), (b"[" * 10**5, "recursion")],
)
def test_damaged_files_are_named(content, message, tmp_path):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json is damaged: .*{message}"):
        read_json(path)


def test_size_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_BYTES", 4)
    path = tmp_path / "a.json"
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json is damaged: it is larger than 0 MB"):
        read_json(path)
