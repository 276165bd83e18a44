"""Tables without end."""

from __future__ import annotations

from outbox.cli.format import aligned


def test_columns_are_aligned_for_any_width_of_a_character() -> None:
    rows = [("1", "日本", "end"), ("200", "a", ""), ("3", "[red]", "x")]
    assert list(aligned(("n", "word", "last"), rows)) == [
        "n    word   last\n",
        "1    日本   end\n",
        "200  a\n",
        "3    [red]  x\n",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert list(aligned(("a", "b"), [])) == ["a  b\n"]
