import io

from rich.console import Console

from hydet.cli.printing import print_lines


def test_lines_are_printed_as_they_are():
    console = Console(width=40, file=io.StringIO(), force_terminal=False)
    path = "results: out/exp[a]/" + "a folder with a long name/" * 10 + "[/large]"
    print_lines(console, path, "car [bold] ??? ${price} \\[x]", "two\nlines \x1b[31m")
    print_lines(console)
    assert console.file.getvalue() == f"{path}\ncar [bold] ??? ${{price}} \\[x]\ntwo\\nlines \\x1b[31m\n"
