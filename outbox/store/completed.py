"""What delivered messages say to `settle/complete.sql`.

Columns are sent as texts: the driver spends a microsecond on each item of an array, more than on all that is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson

from outbox.model.sink import Action

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.model.message import Message
    from outbox.model.sink import Delivered


_NOTHING = Action()


def arguments(
    answers: Sequence[tuple[Message, Delivered, *tuple[object, ...]]], *, keep_history: bool, now: datetime | None
) -> list[object]:
    """The statement's arguments."""
    ids = [answer[0].message_id for answer in answers]
    duplicates = [answer[0].message_id for answer in answers if answer[1].duplicate]
    numbers: dict[Action, int] = {}
    actions = [answer[1].action or action_of(answer[0].target) for answer in answers]
    comma, columns = _joined(
        [str(answer[0].lease_token) for answer in answers],
        [answer[1].workflow_id or "" for answer in answers],
        [answer[1].run_id or "" for answer in answers],
        [str(numbers.setdefault(action, len(numbers) + 1)) for action in actions],
    )
    kinds = ([action[n] for action in numbers] for n in range(len(Action._fields)))
    return [ids, *columns[:3], comma, duplicates, keep_history, now, columns[3], *kinds]


def action_of(target: str | None) -> Action:
    """Read a target. What is no JSON object, a sink may have delivered all the same: then there is nothing to keep."""
    if target is None:
        return _NOTHING
    try:
        fields = orjson.loads(target)
        found = map(fields.get, Action._fields)
        return Action(*[value or None if isinstance(value, str) else None for value in found])
    except (AttributeError, orjson.JSONDecodeError):
        return _NOTHING


def _joined(*columns: Sequence[str]) -> tuple[str, list[str]]:
    """Join each column with a separator that is part of no value; return it and the columns."""
    comma = "\x1f"  # the unit separator
    while True:
        joined = [comma.join(column) for column in columns]
        if all(text.count(comma) == max(0, len(column) - 1) for text, column in zip(joined, columns, strict=True)):
            return comma, joined
        comma = uuid4().hex
