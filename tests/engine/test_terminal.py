import io

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hydet.engine.terminal import Terminal


def make_terminal():
    stream = io.StringIO()
    return Terminal(Console(file=stream, width=80, force_terminal=True, color_system=None)), stream


def test_strings_are_not_wrapped_and_tables_are_rendered():
    terminal, stream = make_terminal()
    terminal.print("[bold]long[/bold] " + "x" * 100)
    table = Table("name")
    table.add_row("value")
    terminal.print(table)
    assert "long " + "x" * 100 in stream.getvalue() and "value" in stream.getvalue()


def test_the_progress_bar_can_be_shown_and_hidden():
    terminal, stream = make_terminal()
    progress = Progress(console=terminal.console)
    progress.add_task("training", total=3)
    terminal.show_progress(progress)
    assert terminal.progress is progress and progress.live.is_started
    terminal.print("above the bar")
    terminal.hide_progress()
    assert terminal.progress is None and not progress.live.is_started
    terminal.hide_progress()
    assert "above the bar" in stream.getvalue()


def test_only_the_main_process_prints(monkeypatch, capsys):
    from hydet.engine import terminal as module

    monkeypatch.setattr(module, "is_main_process", lambda: False)
    Terminal().print("text")
    assert capsys.readouterr().out == ""
