import io

import pytest
from rich.console import Console

from hydet.engine.callbacks import Checkpoints, ConsoleLog, Evaluation, step_statistics
from hydet.engine.terminal import Terminal


def run(tiny, folder, *, is_terminal=False, max_steps=4, every=2, resume=False):
    evaluation = Evaluation(every=4, loader=tiny.make_batches(), evaluators=tiny.Metric())
    callbacks = [ConsoleLog(every=every), evaluation, Checkpoints(every=2)]
    trainer = tiny.build_trainer(folder, max_steps=max_steps, callbacks=callbacks)
    stream = io.StringIO()
    trainer.terminal = Terminal(
        Console(file=stream, force_terminal=is_terminal, width=200, color_system=None)
    )
    trainer.fit(resume=resume)
    assert trainer.terminal.progress is None
    return stream.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_and_progress_bar(tiny, tmp_path, is_terminal):
    text = run(tiny, tmp_path, is_terminal=is_terminal)
    for expected in ("step 2/4", "eta 0:00:00", "images/s", "GB", "  lr ", "total", "validation loss"):
        assert expected in text, expected
    assert ("━" in text) == is_terminal


def test_the_first_step_has_a_line(tiny, tmp_path):
    lines = [line for line in run(tiny, tmp_path, every=100).splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/4", "4/4"]


def test_the_line_of_a_step_precedes_its_evaluation(tiny, tmp_path):
    text = run(tiny, tmp_path)
    assert text.index("step 4/4") < text.index("Evaluation after step 4")


def test_a_resumed_run_says_where_it_continues(tiny, tmp_path):
    run(tiny, tmp_path, max_steps=2)
    text = run(tiny, tmp_path, resume="auto")
    assert "continuing from" in text and "step_00000002, step 2 of 4" in text


def test_memory_is_left_out_where_the_system_does_not_report_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(step_statistics, "peak_memory_gb", lambda device: None)
    text = run(tiny, tmp_path, is_terminal=True)
    assert "GB" not in text and "images/s" in text
