"""The file that keeps the results of a process that is killed."""

import json

from hydet.runs.result_journal import ResultJournal


def test_every_line_is_on_disk_before_the_next_image(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    journal = ResultJournal(path)
    assert not path.exists()
    for i in range(3):
        journal.append({"image": f"Käse {i}.jpg"})
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["image"] for line in lines] == [f"Käse {k}.jpg" for k in range(i + 1)]
    journal.remove()
    assert not path.exists()


def test_an_older_file_is_replaced_by_the_first_line_only(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("of an earlier run\n", encoding="utf-8")
    journal = ResultJournal(path)
    assert path.read_text(encoding="utf-8") == "of an earlier run\n"
    journal.remove()
    assert path.exists()
    journal.append({"image": "a.jpg"})
    assert path.read_text(encoding="utf-8") == '{"image": "a.jpg"}\n'
    journal.remove()
