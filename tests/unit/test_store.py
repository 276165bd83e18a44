"""What the store does to values on their way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.store.completed import _joined

VALUES = st.lists(st.text(st.sampled_from("ab,\x1f\x1e'")), min_size=1, max_size=5)


@given(VALUES)
def test_separator_is_part_of_no_value(values: list[str]) -> None:
    comma, [joined] = _joined(values)
    assert joined.split(comma) == values
