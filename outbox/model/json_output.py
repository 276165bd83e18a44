"""JSON for people and programs. It contains no character that controls a terminal."""

from __future__ import annotations

import json

import orjson


def json_output(value: object, *, indent: bool = False) -> bytes:
    """A value as JSON, and a line break. What cannot be seen is escaped, such as DEL, C1 and bidi controls."""
    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0)
    try:
        text = orjson.dumps(value, default=str, option=option).decode()
    except TypeError:  # a text that is no Unicode, from some other program's error
        return json.dumps(value, default=str, indent=2 if indent else None).encode() + b"\n"
    if text.isascii() and "\x7f" not in text:
        return text.encode()
    return "".join(c if c.isprintable() or c < " " else json.dumps(c)[1:-1] for c in text).encode()
