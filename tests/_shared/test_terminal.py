"""What a sheet looks like at every width: a table or a list, and no word is ever broken."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from yolo_stable._shared.terminal import NARROW, PIPE, Column, Sheet, console

NAME = "guarded,preset=stable,optimizer=SGD,lr0=0.01,seed=0"
PATH = "labels/train/" + "a-rather-long-folder-of-a-camera/" + "0001.txt:3:"
WHY = "Training drops the whole image. Mend the line, or delete it."


def sheet(path: str = PATH) -> Sheet:
    found = Sheet(
        Column(title="run", kind="head"),
        Column(title="status", kind="head"),
        Column(title="final\nloss", right=True),
        Column(title="none"),
        Column(title="where", kind="text"),
        Column(title="why", kind="text"),
    )
    found.add(NAME, Text("done", "green"), "3.25", "", f"{path} class 7; allowed are 0 to 1\nand 4 more", WHY)
    found.add("stock", "failed", "-", "", "", "", style="red")
    return found


def printed(made: Sheet, width: int, **options: object) -> str:
    out = io.StringIO()
    made.print(Console(file=out, width=width, **options))  # pyright: ignore[reportArgumentType]
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 60, 80, 99, 100, 110, 140, 160, 200])
def test_lines_fit_words_stay_whole_and_names_break_at_commas(width: int) -> None:
    text = printed(sheet(), width)
    words = text.split()
    assert PATH in words, "even where it is wider than the terminal"
    assert all(len(line) <= width or line.split() == [PATH] for line in text.splitlines())
    assert not [word for word in WHY.split() if word not in words]
    whole = [word for word in words if "=" in word or word == "guarded,"]
    assert "".join(whole) == NAME
    assert all(part.endswith((",", "seed=0")) for part in whole)


def test_it_is_a_list_where_it_is_narrow_or_a_word_would_break_and_else_a_table() -> None:
    def is_table(width: int, path: str) -> bool:
        text = printed(sheet(path), width)
        assert ("final loss 3.25" in text) != ("─" in text)
        return "─" in text

    assert [is_table(width, "a.txt") for width in (60, 110, PIPE)] == [False, True, True]
    assert [is_table(width, PATH) for width in (110, PIPE)] == [False, True]


@pytest.mark.parametrize(("kind", "tables"), [("text", [False, False, True]), ("figure", [True, True, True])])
def test_paragraphs_want_a_wide_terminal_and_figures_only_their_room(kind: Any, tables: list[bool]) -> None:
    made = Sheet(Column(title="key", kind="head"), Column(title="value", kind=kind))
    made.add("lr0", "0.01")
    assert ["─" in printed(made, width) for width in (40, NARROW - 1, NARROW)] == tables


def test_a_list_has_the_head_the_figures_with_their_titles_and_then_paragraphs() -> None:
    lines = printed(sheet("a.txt:3:"), 72).splitlines()
    assert lines == [
        f"{NAME}  done",
        "  final loss 3.25",
        "  a.txt:3: class 7; allowed are 0 to 1",
        "  and 4 more",
        f"  {WHY}",
        "stock  failed",
        "  final loss -",
        "",
    ]


def test_no_figure_of_a_list_is_parted_from_its_title() -> None:
    made = Sheet(*(Column(title=f"norm\n{share} %") for share in (50, 95, 99)), Column(title="why", kind="text"))
    made.add("20.9", "30.25", "123.4", "")
    assert printed(made, 35).splitlines() == ["  norm 50 % 20.9, norm 95 % 30.25,", "  norm 99 % 123.4", ""]


def test_styles_are_for_terminals_and_markup_is_text() -> None:
    made = Sheet(Column(title="name", kind="head"))
    made.add("[bold]x[/bold]", style="red")
    for width in (50, 120):
        assert "[bold]x[/bold]" in printed(made, width)
        assert "\x1b[31m" in printed(made, width, force_terminal=True, color_system="standard")


def test_wide_characters_count_as_two_columns() -> None:
    made = Sheet(Column(title="name", kind="text"))
    made.add("猫の写真,犬の写真,鳥の写真")
    assert printed(made, 16).split() == ["猫の写真,", "犬の写真,", "鳥の写真"]


@pytest.mark.parametrize(
    ("columns", "width"), [(None, PIPE), ("40", 40), ("", PIPE), ("0", PIPE), ("-5", PIPE), ("wide", PIPE)]
)
def test_a_pipe_is_plain_and_wide_unless_the_environment_says_how_wide(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    to = console(io.StringIO())
    assert (to.width, to.color_system, to.is_terminal) == (width, None, False)
