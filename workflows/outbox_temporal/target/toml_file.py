"""A TOML file with the line of everything in it, so that a fault can be pointed at."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from outbox.model.duration import seconds_of
from outbox.model.errors import ConfigurationError

Place = tuple[str | int, ...]
"""Keys, and indexes of arrays, from the top of the document."""


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed file."""

    path: Path
    document: dict[str, Any]
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """The line of the value at a place, or of the nearest thing around it."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


class FileCheck:
    """Collects the faults of a file, to report them together."""

    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.faults: list[tuple[int, str]] = []

    def fault(self, place: Place, text: str) -> None:
        """Note a fault."""
        self.faults.append((self.file.line(place), text))

    def unknown(self, place: Place, known: Collection[str]) -> None:
        """Note a name that has no meaning here."""
        self.fault(place, f"{place[-1]} is not known here: {advice(str(place[-1]), known)}")

    def settle(self) -> None:
        """Raise ConfigurationError with a line for every fault, in the file's order."""
        if self.faults:
            raise ConfigurationError(*(f"{self.file.path}:{line}: {text}" for line, text in sorted(set(self.faults))))


def advice(name: str, known: Collection[str]) -> str:
    """What to write instead of an unknown name."""
    close = get_close_matches(name, known, n=1) or get_close_matches(name.removesuffix("_s"), known, n=1)
    return f"did you mean {close[0]}?" if close else f"use {', '.join(known)}"


def read(path: Path) -> TomlFile:
    """Read and parse a file. Raises ConfigurationError that names the line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: is not UTF-8") from error
    try:
        return TomlFile(path, tomllib.loads(text), _lines(text))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise ConfigurationError(f"{path}:{line}: {str(error).split(' (at ')[0]}") from error


def seconds(value: object) -> float:
    """A duration in seconds: a number of them, or a text like 90s, 1h30m, 7d, 500ms. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    found = seconds_of(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a duration as 30s, 5m, 1h30m or 2d, or as a number of seconds")
    return found


def _lines(text: str) -> dict[Place, int]:
    """The line of each key and table of a valid document.

    The parser gives no line numbers. But each statement has its own lines, and the shortest run of lines that parses is
    one statement: so it is the parser itself that reads them one by one.
    """
    lines: dict[Place, int] = {(): 1}
    arrays: dict[Place, int] = {}
    table: Place = ()
    began, chunk = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        chunk += line + "\n"
        try:
            statement = tomllib.loads(chunk)
        except tomllib.TOMLDecodeError:
            continue
        keys, last = _keys(statement)
        if chunk.lstrip().startswith("["):
            table = _table(keys, arrays, last=last)
            place = table
        else:
            place = (*table, *keys)
        for end in range(1, len(place) + 1) if keys else ():
            lines.setdefault(place[:end], began)
        began, chunk = number + 1, ""
    return lines


def _keys(statement: dict[str, Any]) -> tuple[list[str], object]:
    """The dotted key of one statement, and what it holds."""
    keys: list[str] = []
    node: object = statement
    while isinstance(node, dict) and len(node) == 1:
        [(key, node)] = node.items()
        keys.append(key)
    return keys, node


def _table(keys: list[str], arrays: dict[Place, int], *, last: object) -> Place:
    """The place of a table's header. `arrays` counts the tables of each array so far."""
    place: Place = ()
    for key in keys[:-1]:
        place = (*place, key)
        if place in arrays:
            place = (*place, arrays[place])
    place = (*place, keys[-1])
    if isinstance(last, list):
        arrays[place] = arrays.get(place, -1) + 1
        place = (*place, arrays[place])
    return place
