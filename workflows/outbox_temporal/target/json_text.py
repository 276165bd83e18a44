"""Cuts values out of JSON text, so that each is passed on as it was written: no value is read and written again."""

from __future__ import annotations

import json
import re

_read = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
"""Finds where a value ends. What it reads is thrown away, and numbers stay text: none is too large."""
_OPEN = re.compile(r"[ \t\n\r]*([\[{])[ \t\n\r]*([\]}]?)")
_NAME = re.compile(r'"([^"\\]*)"[ \t\n\r]*:[ \t\n\r]*')
"""A name without escapes."""
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_AFTER = re.compile(r"[ \t\n\r]*([,\]}])[ \t\n\r]*")


MOST_PARTS = 500
"""Arguments, headers, fields of a memo or search attributes that one message may have.

Each costs a kilobyte on its way to Temporal, and its text may have two bytes. The producer functions' limit too.
"""


class Uncut(ValueError):
    """The text is not what it should be. The message says what it is, without quoting it."""


def elements(text: str, most: int | None = None) -> list[str]:
    """The texts of a JSON array's elements. Raises Uncut, also for more than `most`."""
    found: list[str] = []
    opened = _OPEN.match(text)
    if opened is None or opened[1] != "[":
        raise Uncut("is not an array")
    place, mark = opened.end(), opened[2] or ","
    while mark == ",":
        if len(found) == most:
            raise Uncut(f"has more than {most} elements")
        end = _end(text, place)
        found.append(text[place:end])
        place, mark = _after(text, end)
    if mark != "]":
        raise Uncut("is not JSON")
    return found


def members(text: str, most: int | None = None) -> dict[str, str]:
    """The texts of a JSON object's values by their names; of equal names the last one counts.

    Raises Uncut, also for more than `most`.
    """
    found: dict[str, str] = {}
    opened = _OPEN.match(text)
    if opened is None or opened[1] != "{":
        raise Uncut("is not an object")
    place, mark = opened.end(), opened[2] or ","
    while mark == ",":
        if len(found) == most:
            raise Uncut(f"has more than {most} fields")
        plain = _NAME.match(text, place)
        name, place = (plain[1], plain.end()) if plain is not None else _escaped_name(text, place)
        end = _end(text, place)
        found[name] = text[place:end]
        place, mark = _after(text, end)
    if mark != "}":
        raise Uncut("is not JSON")
    return found


def _end(text: str, place: int) -> int:
    """Where the value ends that begins here."""
    try:
        return _read(text, place)[1]
    except RecursionError:
        raise Uncut("is nested too deeply to be read") from None
    except ValueError:
        raise Uncut("is not JSON") from None


def _after(text: str, end: int) -> tuple[int, str]:
    """What follows a value, a comma or a bracket, and where that is over."""
    after = _AFTER.match(text, end)
    if after is None:
        raise Uncut("is not JSON")
    return after.end(), after[1]


def _escaped_name(text: str, place: int) -> tuple[str, int]:
    """A name, and where its value begins."""
    end = _end(text, place) if text.startswith('"', place) else place
    colon = _COLON.match(text, end)
    if colon is None or end == place:
        raise Uncut("is not JSON")
    name: str = json.loads(text[place:end])
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Uncut("has a name that is not valid Unicode") from None
    return name, colon.end()
