"""Texts with placeholders: `org-bootstrap-{organization_id}`, filled in from a message."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass

import orjson

from outbox.model.message import Message
from outbox_temporal.target.json_text import Uncut, elements, members

_OWN = ("key", "topic", "message_id")
"""What a message has besides its payload and its headers; a payload's field of such a name is `{payload.key}`."""


class Unfilled(ValueError):
    """A placeholder has nothing to stand for. The text says which one and why."""


class _Number(str):
    """A JSON number as it was written: an id of twenty digits keeps all of them."""

    __slots__ = ()


_DECODE_EXACTLY = json.JSONDecoder(parse_int=_Number, parse_float=_Number).decode
"""Keeps the digits of numbers, and reads what orjson refuses; many times slower, so used only where needed."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`{name}`: a field of the payload, a header, or something of the message itself."""

    name: str
    root: str
    path: tuple[str, ...] = ()
    as_text: bool = False
    """Written `{name!s}`: a text also if it is the whole value."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with at least one placeholder."""

    parts: tuple[str | Placeholder, ...]
    may_be_empty: bool

    def text(self, fields: Fields) -> str:
        """The text for a message. Raises Unfilled."""
        return "".join([part if isinstance(part, str) else self._filled(part, fields) for part in self.parts])

    def value(self, fields: Fields) -> object:
        """The text, or, of a template that is one placeholder and nothing else, the field's JSON as it was written."""
        if len(self.parts) > 1 or not isinstance(only := self.parts[0], Placeholder) or only.as_text:
            return self.text(fields)
        return fields.value(only)

    def _filled(self, placeholder: Placeholder, fields: Fields) -> str:
        value = fields.scalar(placeholder)
        if value == "" and not self.may_be_empty:
            raise Unfilled(f"{{{placeholder.name}}} is empty")
        if isinstance(value, bool):
            return "true" if value else "false"
        return value


def compiled(text: str, *, may_be_empty: bool) -> Template | str:
    """Read a text; one without placeholders stays a text. Raises ValueError that says what is wrong with it."""
    parts: list[str | Placeholder] = []
    for literal, name, spec, conversion in string.Formatter().parse(text):
        if literal:
            parts.append(literal)
        if name is not None:
            if spec or conversion not in (None, "s"):
                raise ValueError(f"{{{name}}} takes no format: write {{{name}}}, or {{{name}!s}} for a text")
            parts.append(_placeholder(name, as_text=conversion == "s"))
    if any(isinstance(part, Placeholder) for part in parts):
        return Template(tuple(parts), may_be_empty)
    return "".join(map(str, parts))


def _placeholder(name: str, *, as_text: bool) -> Placeholder:
    root, *path = name.split(".")
    if not all([root, *path]) or name != name.strip() or "[" in name:
        raise ValueError(f"{{{name}}} names no field: write {{field}} or {{payload.field.of.a.field}}")
    if root in _OWN:
        if path:
            raise ValueError(f"{{{name}}} is ambiguous: a field of the payload is {{payload.{name}}}")
        return Placeholder(name, root, (), as_text)
    if root == "headers":
        if not path:
            raise ValueError("{headers} is not one value: write {headers.name}")
        return Placeholder(name, root, (".".join(path),), as_text)
    return Placeholder(name, "payload", tuple(path) if root == "payload" else (root, *path), as_text)


class Fields:
    """What placeholders can name in one message. Its JSON is read when the first of them asks."""

    __slots__ = ("_message", "_trees")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._trees: dict[str, object] = {}

    def value(self, placeholder: Placeholder) -> object:
        """The field's JSON, to be written as it is in the message. Raises Unfilled."""
        value = self.scalar(placeholder)
        if placeholder.root in _OWN:
            return value
        try:
            return orjson.Fragment(cut(self._text(placeholder), placeholder))
        except Uncut as error:
            raise Unfilled(f"the {placeholder.root} {error}") from None

    def scalar(self, placeholder: Placeholder) -> str | bool:
        """The field's value: a text, a number as it was written, or a boolean. Raises Unfilled."""
        value = self._found(placeholder)
        if isinstance(value, float):  # also what an integer beyond 64 bits has become
            self._trees[placeholder.root] = _decoded_exactly(self._text(placeholder), placeholder.root)
            value = self._found(placeholder)
        if isinstance(value, str):
            if not value.isascii() and not value.isprintable() and _has_surrogates(value):
                raise Unfilled(f"{{{placeholder.name}}} is not valid Unicode")
            return value
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return _Number(value)
        kind = "null" if value is None else "an object" if isinstance(value, dict) else "an array"
        raise Unfilled(f"{{{placeholder.name}}} is {kind}")

    def _found(self, placeholder: Placeholder) -> object:
        match placeholder.root:
            case "key":
                if self._message.key is None:
                    raise Unfilled("{key} is missing: the message has no key")
                return self._message.key
            case "topic":
                return self._message.topic
            case "message_id":
                return str(self._message.message_id)
            case root:
                if root not in self._trees:
                    self._trees[root] = _decoded(self._text(placeholder), root)
                return walk(self._trees[root], placeholder)

    def _text(self, placeholder: Placeholder) -> str:
        text = self._message.headers if placeholder.root == "headers" else self._message.payload
        if text is None:
            raise Unfilled(f"{{{placeholder.name}}} is missing: the message has no payload")
        return text


def _decoded(text: str, what: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _decoded_exactly(text, what)


def _decoded_exactly(text: str, what: str) -> object:
    try:
        return _DECODE_EXACTLY(text)
    except RecursionError:
        raise Unfilled(f"the {what} is nested too deeply to be read") from None
    except ValueError as error:
        raise Unfilled(f"the {what} is not JSON: {error}") from error


def walk(node: object, placeholder: Placeholder) -> object:
    """The value at a placeholder's path, from a decoded tree. Raises Unfilled."""
    for step in placeholder.path:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            raise Unfilled(f"{{{placeholder.name}}} is missing in the {placeholder.root}")
    return node


def cut(text: str, placeholder: Placeholder) -> str:
    """The text of the value at a placeholder's path, as it was written. Raises Unfilled, Uncut."""
    for step in placeholder.path:
        found = None
        if text.lstrip().startswith("{"):
            found = members(text).get(step)
        elif text.lstrip().startswith("[") and step.isdecimal():
            found = dict(enumerate(elements(text))).get(int(step))
        if found is None:
            raise Unfilled(f"{{{placeholder.name}}} is missing in the {placeholder.root}")
        text = found
    return text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
