"""A row as it was read, and the message that a mapping makes of it. Nothing here waits for anything."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from outbox.model.message import Message
from outbox_temporal.importing.mapping import ImportMapping
from outbox_temporal.sink.allow_list import RequestedAction, wish_of
from outbox_temporal.target.json_text import Uncut, members
from outbox_temporal.target.target import Target
from outbox_temporal.target.templates import Fields, Placeholder, Template, Unfilled, cut

LONGEST_NAME = 1000
"""Bytes of an identity, a key or a tenant: an index entry has room for little more."""
LARGEST_PAYLOAD = 2_096_128
"""Bytes; the producer functions' limit. They would say the same, but should not be sent what they refuse."""


class Row(NamedTuple):
    """One row of the source."""

    identity: str | None
    text: str
    """The row as PostgreSQL writes it as a JSON object: with every digit of its numbers."""
    copies: int
    """How many rows have this identity."""


class Planned(NamedTuple):
    """What a row becomes."""

    identity: str
    workflow: str
    workflow_id: str
    namespace: str
    message: dict[str, Any]
    """The arguments of `enqueue_many`."""
    payload_bytes: int
    wish: RequestedAction
    """What its start will ask of Temporal."""


class RowRefusal(NamedTuple):
    """A row that becomes nothing, and why."""

    identity: str
    reason: str


def planned(mapping: ImportMapping, row: Row) -> Planned | RowRefusal:
    """The message that a row becomes, or why it cannot become one. What only PostgreSQL can judge is left to it."""
    try:
        return _planned(mapping, row)
    except Unfilled as error:
        return RowRefusal(row.identity or "", str(error).replace("in the payload", "in the row"))
    except ValueError as error:
        return RowRefusal(row.identity or "", str(error))


def _planned(mapping: ImportMapping, row: Row) -> Planned:
    identity = _identity(mapping, row)
    text = _with_json_columns(mapping, row.text)
    carrier = _carrier(text)
    target = mapping.route.target_of(carrier)
    assert isinstance(target, Target)  # a mapping starts workflows
    fields = Fields(carrier)
    message: dict[str, Any] = {"topic": mapping.topic, "target": target.model_dump(exclude_defaults=True)}
    for name, template in (("key", mapping.key), ("tenant", mapping.tenant)):
        if (value := _name(name, template, fields)) is not None:
            message[name] = value
    if mapping.priority:
        message["priority"] = mapping.priority
    size = 0
    if target.arguments != "none":
        payload = _payload(mapping, text, fields)
        size = len(payload)
        if size > LARGEST_PAYLOAD:
            raise ValueError(f"the input is {size} bytes long, the limit is {LARGEST_PAYLOAD}")
        if target.arguments == "many" and not payload.lstrip().startswith(b"["):
            raise ValueError("the input is not an array, and the mapping says arguments = 'many'")
        message["payload"] = orjson.Fragment(payload)
    wish = wish_of(target, target.workflow_id)
    return Planned(identity, target.workflow or "", target.workflow_id, target.namespace or "", message, size, wish)


def _identity(mapping: ImportMapping, row: Row) -> str:
    """The row's identity. Raises ValueError for what identifies no row."""
    column, identity = mapping.source.identity, row.identity
    if not identity:
        raise ValueError(f"its {column} is {'null' if identity is None else 'empty'}, and nothing else identifies it")
    if len(identity.encode()) > LONGEST_NAME:
        raise ValueError(f"its {column} is {len(identity.encode())} bytes long, the limit is {LONGEST_NAME}")
    if row.copies > 1:
        raise ValueError(f"{row.copies} rows have this {column}")
    return identity


def _carrier(text: str) -> Message:
    """A message with the row as its payload: what a route's placeholders read."""
    return Message(
        message_id=UUID(int=0),
        seq=0,
        topic="",
        key=None,
        payload=text,
        headers="{}",
        target=None,
        deliveries=0,
        attempts=0,
        setbacks=0,
        age_s=0.0,
        lease_token=0,
    )


def _with_json_columns(mapping: ImportMapping, text: str) -> str:
    """The row with the JSON in its columns of text in their place. Raises ValueError for what is not JSON."""
    if not mapping.source.json_columns:
        return text
    columns = _columns(text)
    for column in mapping.source.json_columns:
        if columns[column].startswith('"'):
            columns[column] = json.loads(columns[column])
            try:
                orjson.loads(columns[column])
            except orjson.JSONDecodeError as error:
                raise ValueError(f"{column} is not JSON: {error}") from error
    return _encoded(_fragments(columns), "row").decode()


def _payload(mapping: ImportMapping, text: str, fields: Fields) -> bytes:
    """The workflow's argument, as JSON: each value is cut out of the row's text, as it was written."""
    if mapping.column is None and mapping.columns == "*" and not mapping.fields:
        return text.encode()
    row = _columns(text)
    if mapping.column is not None:
        return row[mapping.column].encode()
    columns = row if mapping.columns == "*" else {column: row[column] for column in mapping.columns}
    filled = {name: _filled(tree, text, fields) for name, tree in mapping.fields.items()}
    return _encoded(_fragments(columns) | filled, "input")


def _filled(tree: object, row: str, fields: Fields) -> object:
    """A tree with its templates filled in; a text that is only a placeholder becomes the value itself."""
    match tree:
        case Template(parts=(Placeholder(as_text=False) as only,)):
            return orjson.Fragment(cut(row, only))
        case Template():
            return tree.text(fields)
        case dict():
            return {name: _filled(value, row, fields) for name, value in tree.items()}
        case list():
            return [_filled(value, row, fields) for value in tree]
        case _:
            return tree


def _name(what: str, template: Template | str | None, fields: Fields) -> str | None:
    """A key or tenant. If a placeholder is the whole text, null means none."""
    if not isinstance(template, Template):
        return template
    try:
        value = template.text(fields)
    except Unfilled as error:
        if len(template.parts) == 1 and str(error).endswith(" is null"):
            return None
        raise Unfilled(f"{what}: {error}") from None
    if len(value.encode()) > LONGEST_NAME:
        raise ValueError(f"its {what} is {len(value.encode())} bytes long, the limit is {LONGEST_NAME}")
    if "\0" in value:
        raise ValueError(f"its {what} contains the character NUL")
    return value


def _columns(text: str) -> dict[str, str]:
    """The row's values as they stand in its JSON. Raises ValueError."""
    try:
        return members(text)
    except Uncut as error:
        raise ValueError(f"the row {error}") from None


def _fragments(columns: dict[str, str]) -> dict[str, object]:
    return {name: orjson.Fragment(text) for name, text in columns.items()}


def _encoded(tree: object, what: str) -> bytes:
    try:
        return orjson.dumps(tree)
    except TypeError as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error
