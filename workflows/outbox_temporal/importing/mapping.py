"""The mapping: a file that says how a row from elsewhere becomes the start of a workflow.

It is checked as a whole before anything is read; what it says of the workflow is checked by the rules of routes. What
is left to find out for each row is whether its columns fill the placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from outbox.model.errors import ConfigurationError
from outbox_temporal.target.check import checked, compiled_tree, means_something
from outbox_temporal.target.route import Route
from outbox_temporal.target.templates import Template, compiled
from outbox_temporal.target.toml_file import FileCheck, Place, TomlFile, advice, read

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_TABLES = ("source", "start", "message", "input")
_NOT_HERE = {"topic": "it belongs to [message]", "operation": "an import starts workflows and does nothing else"}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SourceTable(_Table):
    """`[source]`: which rows."""

    identity: Annotated[str, Field(min_length=1)]
    """The column with unique values."""
    query: str | None = None
    """File with one SQL query, beside the mapping."""
    table: str | None = None
    """A table or view, as SQL writes it."""
    json_columns: list[str] = Field(default=[], alias="json")
    """Columns of text that hold JSON."""


class Envelope(_Table):
    """`[message]`: what the messages get besides their target. `key` and `tenant` may have placeholders."""

    topic: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    key: Annotated[str, Field(min_length=1)] | None = None
    tenant: Annotated[str, Field(min_length=1)] | None = None
    priority: int = Field(0, ge=0, le=9)


def _columns(value: object) -> object:
    if value == "*" or (isinstance(value, list) and all(isinstance(column, str) for column in value)):
        return value
    raise ValueError("write '*' for all, or a list of columns")


class Input(_Table):
    """`[input]`: the workflow's argument. Nothing said: the whole row."""

    columns: Annotated[Literal["*"] | list[str] | None, BeforeValidator(_columns)] = None
    column: str | None = None
    fields: dict[str, Any] = {}


class Use(NamedTuple):
    """A column that the mapping names, and where."""

    place: Place
    column: str


M = TypeVar("M", bound=_Table)


@dataclass(frozen=True, slots=True)
class ImportMapping:
    """A mapping without fault, except for the columns, which only the source can confirm."""

    file: TomlFile
    name: str
    """The name of the import in the journal."""
    source: SourceTable
    query: str | None
    """The text of `source.query`."""
    route: Route
    topic: str
    priority: int
    key: Template | str | None
    tenant: Template | str | None
    columns: Literal["*"] | Sequence[str]
    column: str | None
    fields: dict[str, object]
    """The further fields of the input, with templates among them."""
    uses: tuple[Use, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def at(self, *place: str | int) -> str:
        """A place in the file for people: `old.toml:7`."""
        return f"{self.path}:{self.file.line(place)}"

    def require_columns(self, there: Sequence[str]) -> None:
        """Raise ConfigurationError with a line for every column that the source has not, or has twice."""
        check = FileCheck(self.file)
        for use in self.uses:
            if use.column not in there:
                text = f"{use.column} is not a column of the source: {advice(use.column, there)}"
                check.fault(use.place, text)
        place = ("source", "table" if self.query is None else "query")
        for column in {column for column in there if there.count(column) > 1}:
            check.fault(place, f"the source has the column {column} twice: rename one")
        check.settle()


def load(path: Path) -> ImportMapping:
    """Read a mapping. Raises ConfigurationError with a line for every fault in it, in the file's order."""
    check = _MappingCheck(read(path))
    mapping = check.mapping()
    check.settle()
    assert mapping is not None
    return mapping


class _MappingCheck(FileCheck):
    """One pass over a file, which collects `faults`."""

    def mapping(self) -> ImportMapping | None:
        """The mapping, if it has no fault."""
        for key in self.file.document.keys() - {"name", *_TABLES}:
            self.unknown((key,), ("name", *_TABLES))
        name = self._name()
        source = self._table(SourceTable, "source")
        query = self._query(source) if source else None
        route = self._route()
        envelope = self._table(Envelope, "message")
        given = self._table(Input, "input")
        fields = self._fields(given) if given else {}
        uses = tuple(self._uses(source, given))
        if self.faults or source is None or route is None or envelope is None or given is None:
            return None
        return ImportMapping(
            self.file,
            name,
            source,
            query,
            route,
            envelope.topic or f"import.{name}",
            envelope.priority,
            self._text(envelope.key),
            self._text(envelope.tenant),
            given.columns if given.columns is not None else () if given.fields else "*",
            given.column,
            fields,
            uses,
        )

    def _name(self) -> str:
        name = self.file.document.get("name", self.file.path.stem)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.fault(("name",), f"name is {name!r}: use 1 to 100 small letters, digits, and . _ - between them")
            return "-"
        return name

    def _table(self, model: type[M], name: str) -> M | None:
        """A table as its model; None if it has faults."""
        table = self.file.document.get(name, {})
        if not isinstance(table, dict):
            self.fault((name,), f"{name} must be a table: write [{name}], and its fields below")
            return None
        known = [field.alias or key for key, field in model.model_fields.items()]
        try:
            return model.model_validate(table)
        except ValidationError as error:
            for fault in error.errors():
                key = str(fault["loc"][0])
                if fault["type"] == "extra_forbidden":
                    self.unknown((name, key), known)
                elif fault["type"] == "missing":
                    self.fault((name,), f"{name}.{key} is missing")
                else:
                    text = fault["msg"].removeprefix("Value error, ")
                    self.fault((name, key), f"{name}.{key} is {table[key]!r}: {text[:1].lower()}{text[1:]}")
        return None

    def _query(self, source: SourceTable) -> str | None:
        """The query's text. Faults: no query and no table, both, or a file that cannot be read."""
        if (source.query is None) == (source.table is None):
            which = "query or table is missing" if source.query is None else "query and table exclude each other"
            self.fault(("source",), f"source: {which}")
            return None
        if source.query is None:
            return None
        path = self.file.path.parent / source.query
        try:
            text = path.read_text(encoding="utf-8-sig").strip().rstrip(";").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            self.fault(("source", "query"), f"{path} cannot be read: {reason}")
            return None
        if not text:
            self.fault(("source", "query"), f"{path} is empty")
        return text

    def _route(self) -> Route | None:
        """What `[start]` says, read and judged as a route's would be."""
        table = self.file.document.get("start")
        if not isinstance(table, dict):
            self.fault(("start",), "[start] is missing: it says which workflow a row starts, and under which id")
            return None
        for field in table:
            place = ("start", field)
            if field in _NOT_HERE:
                self.fault(place, f"{field} is not known here: {_NOT_HERE[field]}")
            elif not means_something(field, "start_workflow"):
                self.fault(place, f"{field} means nothing to the start of a workflow")
        # A workflow id that is taken already is a fault that a person must look at, unless the mapping says otherwise.
        stand_in = {"on_duplicate": "reject"} | {name: value for name, value in table.items() if name not in _NOT_HERE}
        here = {place[1:]: line for place, line in self.file.lines.items() if place[:1] == ("start",)}
        lines: dict[Place, int] = {(): 1} | {("route", 0, *rest): line for rest, line in here.items()}
        try:
            [route] = checked(TomlFile(self.file.path, {"route": [{"topic": "*"} | stand_in]}, lines))
        except ConfigurationError as error:
            for fault in error.faults:
                line, _, text = fault.removeprefix(f"{self.file.path}:").partition(": ")
                self.faults.append((int(line), text))
            return None
        return route

    def _fields(self, given: Input) -> dict[str, object]:
        """The input's further fields, compiled."""
        if given.column is not None:
            for other in [name for name in ("columns", "fields") if getattr(given, name)]:
                self.fault(("input", other), f"input.column is the whole input, and excludes {other}")
        found: dict[str, object] = {}
        for name, tree in given.fields.items():
            try:
                found[name] = compiled_tree(tree, may_be_empty=True)
            except ValueError as error:
                self.fault(("input", "fields", name), f"fields.{name}: {error}")
        return found

    def _text(self, text: str | None) -> Template | str | None:
        return None if text is None else compiled(text, may_be_empty=False)

    def _uses(self, source: SourceTable | None, given: Input | None) -> Iterator[Use]:
        """Every column that is named anywhere."""
        if source is not None:
            yield Use(("source", "identity"), source.identity)
            yield from (Use(("source", "json"), column) for column in source.json_columns)
        if given is not None:
            listed = [] if given.columns in (None, "*") else given.columns
            yield from (Use(("input", "columns"), column) for column in listed or ())
            if given.column is not None:
                yield Use(("input", "column"), given.column)
        for table in ("start", "message"):
            yield from self._placeholders(self.file.document.get(table), (table,))
        yield from self._placeholders(given.fields if given else {}, ("input", "fields"))

    def _placeholders(self, tree: object, place: Place) -> Iterator[Use]:
        """The columns in a tree's placeholders. Faults: placeholders that name no column."""
        if isinstance(tree, dict):
            for name, value in tree.items():
                yield from self._placeholders(value, (*place, name))
        elif isinstance(tree, list):
            for number, value in enumerate(tree):
                yield from self._placeholders(value, (*place, number))
        elif isinstance(tree, str):
            yield from self._placeholders_of(tree, place)

    def _placeholders_of(self, text: str, place: Place) -> Iterator[Use]:
        try:
            template = compiled(text, may_be_empty=True)
        except ValueError as error:
            if place[0] == "message":  # the others are compiled, and judged, where they belong
                self.fault(place, f"{place[-1]}: {error}")
            return
        for part in template.parts if isinstance(template, Template) else ():
            if isinstance(part, str):
                continue
            if part.root == "payload" and part.path:
                yield Use(place, part.path[0])
            else:
                column = part.name.split(".")[0]
                self.fault(place, f"{{{part.name}}} names no column: one of that name is {{payload.{column}}}")
