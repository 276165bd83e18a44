"""Just enough of PostgreSQL's logical replication messages (protocol version 1) to see which rows were inserted."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    schema: str
    table: str
    columns: list[str]
    key: list[str]


@dataclass(frozen=True)
class Insert:
    relation: Relation
    row: dict[str, str | None]


class Decoder:
    """Keeps the relations that the stream has described so far."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}

    def decode(self, message: bytes) -> Iterator[Insert]:
        """The insert in a message, if it is one."""
        kind, body = message[:1], message[1:]
        if kind == b"R":
            self._describe(body)
        elif kind == b"I":
            relation = self._relations[struct.unpack_from("!I", body)[0]]
            assert body[4:5] == b"N"
            yield Insert(relation, dict(zip(relation.columns, _tuple(body[5:]), strict=True)))

    def _describe(self, body: bytes) -> None:
        (oid,) = struct.unpack_from("!I", body)
        schema, table, rest = body[4:].split(b"\0", 2)
        (count,) = struct.unpack_from("!h", rest, 1)
        rest, columns, key = rest[3:], [], []
        for _ in range(count):
            name, tail = rest[1:].split(b"\0", 1)
            columns.append(name.decode())
            if rest[0] & 1:
                key.append(name.decode())
            rest = tail[8:]
        self._relations[oid] = Relation(schema.decode(), table.decode(), columns, key)


def _tuple(body: bytes) -> Iterator[str | None]:
    (count,) = struct.unpack_from("!h", body)
    at = 2
    for _ in range(count):
        kind = body[at : at + 1]
        at += 1
        if kind == b"t":
            (length,) = struct.unpack_from("!i", body, at)
            yield body[at + 4 : at + 4 + length].decode()
            at += 4 + length
        else:
            yield None  # null, or an unchanged value out of line
