import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from hydet.visualization import fonts
from hydet.visualization.fonts import drawable_text, shorten

SCRIPTS = [
    "Škoda Überführung",
    "Жук и ёж",
    "αβγ Ωμέγα",
    "漢字汽车",
    "ひらがな カタカナ",
    "한국어",
    "عربى",
    "हिन्दी",
    "🚗 car",
    "\U0010fffd",
]


@pytest.fixture
def use_fonts(monkeypatch):
    """Return a function that replaces the font files of the machine by others."""

    def use(*files):
        monkeypatch.setattr(fonts, "_font_files", lambda: tuple(Path(file) for file in files))
        fonts._choose_font.cache_clear()

    yield use
    fonts._choose_font.cache_clear()


def empty_box(font):
    return fonts._drawn(font, fonts._NO_CHARACTER)


@pytest.mark.parametrize("text", SCRIPTS)
def test_no_character_is_drawn_as_an_empty_box(text):
    shown, font = drawable_text(text, 16)
    assert shown.strip()
    assert all(fonts._drawn(font, c) != empty_box(font) for c in shown if not c.isspace())


def test_ascii_has_the_font_of_pillow(use_fonts):
    use_fonts("no font at all")
    assert drawable_text("dog 0.87", 12) == ("dog 0.87", fonts._load(None, 12))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Škoda Ø straße", "Skoda O strasse"),
        ("Жёлтый щит", "Zheltyy shchit"),
        ("Ωμέγα", "Omega"),
        ("漢 0.50", "\\u6f22 0.50"),
        ("e\u0301t\u0302", "et"),
        ("½ Ａ", "\\xbd A"),
    ],
)
def test_without_any_font_characters_become_ascii(use_fonts, text, shown):
    use_fonts()
    assert drawable_text(text, 16).text == shown


def test_files_that_are_no_fonts_are_passed_over(use_fonts, tmp_path):
    (tmp_path / "a.ttf").write_bytes(b"no font")
    use_fonts(tmp_path / "a.ttf", tmp_path / "missing.ttf")
    assert drawable_text("漢", 16).text == "\\u6f22"


def test_line_breaks_controls_and_surrogates_are_escaped():
    assert drawable_text("a\nb\tc\x1b[31m", 16).text == "a\\nb\\tc\\x1b[31m"
    assert drawable_text("a\u200bb\u3000c\ufeff", 16).text == "ab c"
    assert drawable_text("\ud800", 16).text == "\\ud800"


def test_preferred_and_regular_fonts_come_first(monkeypatch, tmp_path):
    names = [
        "Zebra-Bold.ttf",
        "Aardvark-Italic.otf",
        "Zebra.TTF",
        "wqy-microhei.ttc",
        "DejaVuSans.ttf",
        "notes.txt",
    ]
    (tmp_path / "below").mkdir()
    for i, name in enumerate(names):
        (tmp_path / ("below" if i % 2 else "") / name).touch()
    monkeypatch.setattr(fonts, "_font_folders", lambda: [tmp_path, tmp_path / "missing"])
    files = fonts._font_files.__wrapped__()
    assert [file.name for file in files] == [names[4], names[3], names[2], names[1], names[0]]


@pytest.mark.parametrize(
    ("platform", "folder"), [("linux", ".fonts"), ("darwin", "Library"), ("win32", "Fonts")]
)
def test_fonts_are_found_on_every_system(monkeypatch, platform, folder):
    monkeypatch.setattr(fonts.sys, "platform", platform)
    monkeypatch.setattr(fonts.os.path, "expanduser", lambda path: os.path.join("home", "me"))
    assert any(folder in str(path) for path in fonts._font_folders())


def test_long_text_is_cut():
    draw = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    text, font = drawable_text("a long name of a class" * 500, 12)
    short = shorten(draw, text, font, 100)
    assert short.endswith("...") and 80 < draw.textlength(short, font=font) <= 100
    assert shorten(draw, "dog", font, 100) == "dog"
