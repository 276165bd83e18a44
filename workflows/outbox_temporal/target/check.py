"""Checks a file of routes and makes the routes of it. It finds all faults, then reports them together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from outbox_temporal.target.route import Route
from outbox_temporal.target.target import MEMO_KEY, NEEDS, Record, RetryPolicy, Target, lacking
from outbox_temporal.target.templates import Template, compiled
from outbox_temporal.target.toml_file import FileCheck, Place, TomlFile, seconds

_TOP = ("defaults", "route")
_DEFAULTS = (
    "task_queue",
    "namespace",
    "id_reuse_policy",
    "id_conflict_policy",
    "on_duplicate",
    "execution_timeout",
    "run_timeout",
    "task_timeout",
    "start_delay",
    "retry_policy",
)
"""What `[defaults]` may hold: what makes sense for more than one workflow."""
_OPERATIONS = (*NEEDS, Record.operation)
_TEXTS = frozenset(name for name, field in Target.model_fields.items() if field.annotation in (str, str | None))
_MAY_BE_EMPTY = frozenset({"reason", "summary", "details"})
_TREES = ("memo", "search_attributes")
_LONGEST_TOPIC = 255


def checked(file: TomlFile) -> list[Route]:
    """The routes of a file. Raises ConfigurationError with a line for every fault, in the file's order."""
    check = _RouteCheck(file)
    routes = check.routes()
    check.settle()
    return routes


class _RouteCheck(FileCheck):
    """One pass over a file, which collects `faults`."""

    def __init__(self, file: TomlFile) -> None:
        super().__init__(file)
        self._inherited: dict[str, object] = {}

    def routes(self) -> list[Route]:
        """The routes that have no fault."""
        document = self.file.document
        for key in document.keys() - set(_TOP):
            self.unknown((key,), _TOP)
        defaults = self._defaults(document.get("defaults", {}))
        tables = document.get("route", [])
        if isinstance(tables, dict):
            self.fault(("route",), "write [[route]], with two brackets: there may be several")
            tables = []
        elif not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.fault(("route",), "route must be a table: write [[route]], and its fields below")
            tables = []
        elif not tables and document.keys() <= set(_TOP):  # else it may be there under a wrong name
            self.fault((), "there is no [[route]]")
        self._duplicates(tables)
        routes = [self._route(table, ("route", n), defaults) for n, table in enumerate(tables)]
        return [route for route in routes if route is not None]

    def _defaults(self, table: object) -> dict[str, Any]:
        """The defaults that have no fault, by Target's names."""
        if not isinstance(table, dict):
            self.fault(("defaults",), "defaults must be a table: write [defaults], and its fields below")
            return {}
        values = self._values(table, Target, ("defaults",), _DEFAULTS)
        neutral = {"operation": "cancel_workflow", "workflow_id": "any"}
        wrong = self._judge(values | neutral, ("defaults",), together=False)  # that depends on the route
        self._inherited = self._templates(values, ("defaults",))
        return {name: value for name, value in values.items() if name not in wrong}

    def _duplicates(self, tables: list[dict[str, Any]]) -> None:
        """Of two routes for one topic the second would never be reached."""
        first: dict[object, int] = {}
        for n, table in enumerate(tables):
            topic = table.get("topic")
            if not isinstance(topic, str):
                continue
            if topic in first:
                line = self.file.line(("route", first[topic]))
                self.fault(("route", n, "topic"), f"the topic {topic!r} has a route already, in line {line}")
            first.setdefault(topic, n)

    def _route(self, table: dict[str, Any], place: Place, defaults: dict[str, Any]) -> Route | None:
        before = len(self.faults)
        topic = table.get("topic")
        if fault := _fault_of_topic(topic):
            self.fault((*place, "topic"), fault)
        fields = {name: value for name, value in table.items() if name != "topic"}
        own = self._values(fields, Target, place, [*_written(Target), "topic"])
        if own.get("operation") == Record.operation:
            route = Route(str(topic), self.file.line(place), Record(), texts={}, trees={}, own=frozenset(own))
            return None if len(self.faults) > before else route
        values = {"operation": "start_workflow"} | defaults | own
        if values["operation"] == "signal_with_start_workflow":
            values = {"arguments": "one", "signal_arguments": "one"} | values
            if "id_conflict_policy" not in own and values.get("id_conflict_policy") == "fail":
                del values["id_conflict_policy"]  # a default for starts, which this operation does not take
        self._judge(values, place)
        templates = self._templates(own, place)
        if len(self.faults) > before:
            return None
        templates = self._inherited | templates
        plain = {name: found for name, found in templates.items() if not has_template(found)}
        return Route(
            topic=str(topic),
            line=self.file.line(place),
            target=Target.model_validate(values | plain),
            texts={name: found for name, found in templates.items() if isinstance(found, Template)},
            trees={name: found for name, found in templates.items() if name in _TREES and name not in plain},
            own=frozenset(own),
        )

    def _values(
        self, table: dict[str, Any], model: type[BaseModel], place: Place, allowed: Collection[str]
    ) -> dict[str, Any]:
        """A table's values by the model's names: durations as seconds, and without what is unknown."""
        fields = _written(model)
        values: dict[str, Any] = {}
        for key, given in table.items():
            value = given
            if key not in allowed or key not in fields:
                self.unknown((*place, key), allowed)
                continue
            if fields[key] != key:
                try:
                    value = seconds(given)
                except ValueError as error:
                    self.fault((*place, key), f"{key} is {given!r}: {error}")
                    continue
            elif key == "memo" and isinstance(given, dict) and MEMO_KEY in given:
                self.fault((*place, key, MEMO_KEY), f"memo.{MEMO_KEY} is the outbox's own: choose another name")
                continue
            elif key == "retry_policy" and isinstance(given, dict):
                value = self._values(given, RetryPolicy, (*place, key), _written(RetryPolicy))
            values[fields[key]] = value
        return values

    def _judge(self, values: dict[str, Any], place: Place, *, together: bool = True) -> set[str]:
        """Let Target say what is wrong with the values. Return the fields concerned."""
        wrong: set[str] = set()
        try:
            Target.model_validate(values)
        except ValidationError as error:
            for fault in error.errors():
                path = tuple(str(step).removesuffix("_s") if isinstance(step, str) else step for step in fault["loc"])
                name = ".".join(map(str, path))
                text = fault["msg"].removeprefix("Value error, ")
                if fault["type"] == "missing":
                    self.fault(place, f"{name} is missing")
                elif name == "operation":
                    self.fault((*place, *path), f"operation is {fault['input']!r}: use {', '.join(_OPERATIONS)}")
                elif name:
                    self.fault((*place, *path), f"{name} is {fault['input']!r}: {text[:1].lower()}{text[1:]}")
                elif together:
                    self.fault(place, text)
                wrong.update(map(str, fault["loc"][:1]))
            operation = values["operation"]
            if wrong and isinstance(operation, str) and operation in NEEDS:  # Target did not come to look for these
                for name in lacking(operation, values):
                    self.fault(place, f"{operation} needs {name}")
        return wrong

    def _templates(self, values: dict[str, Any], place: Place) -> dict[str, object]:
        """The texts of a table, and its trees of values, with their placeholders compiled."""
        found: dict[str, object] = {}
        for name, value in values.items():
            if name in _TEXTS and isinstance(value, str):
                found[name] = self._compiled(value, name, (*place, name), may_be_empty=name in _MAY_BE_EMPTY)
            elif name in _TREES and isinstance(value, dict):
                found[name] = {
                    key: self._compiled(leaf, f"{name}.{key}", (*place, name, key), may_be_empty=True)
                    for key, leaf in value.items()
                }
        return found

    def _compiled(self, tree: object, name: str, place: Place, *, may_be_empty: bool) -> object:
        """A text, or a tree of JSON values, with its placeholders compiled."""
        try:
            orjson.dumps(tree)
            return compiled_tree(tree, may_be_empty=may_be_empty)
        except TypeError as error:
            self.fault(place, f"{name} cannot be written as JSON: {error}")
        except ValueError as error:
            self.fault(place, f"{name}: {error}")
        return tree


def _written(model: type[BaseModel]) -> dict[str, str]:
    """The model's fields by their names in the file, where durations do without the unit."""
    return {name.removesuffix("_s"): name for name in model.model_fields}


def compiled_tree(tree: object, *, may_be_empty: bool) -> object:
    """A tree of JSON values with its texts compiled. Raises ValueError."""
    match tree:
        case str():
            return compiled(tree, may_be_empty=may_be_empty)
        case dict():
            return {name: compiled_tree(value, may_be_empty=may_be_empty) for name, value in tree.items()}
        case list():
            return [compiled_tree(value, may_be_empty=may_be_empty) for value in tree]
        case _:
            return tree


def has_template(tree: object) -> bool:
    """Whether anything in a compiled tree is to be filled in."""
    if isinstance(tree, dict):
        return any(map(has_template, tree.values()))
    return any(map(has_template, tree)) if isinstance(tree, list) else isinstance(tree, Template)


def _fault_of_topic(topic: object) -> str | None:
    """What is wrong with a route's topic, if anything."""
    if topic is None:
        return "topic is missing"
    if not isinstance(topic, str) or not topic:
        return f"topic is {topic!r}: write a topic, or a prefix as in 'organization.*'"
    if len(topic.encode()) > _LONGEST_TOPIC:
        return f"topic is never reached: it is longer than {_LONGEST_TOPIC} bytes, the limit of a message's topic"
    stem = topic.removesuffix("*")
    if "*" in stem or (stem != topic and stem and not stem.endswith(".")):
        return f"topic is {topic!r}: * must be at the end, after a dot, as in 'organization.*', or alone"
    return None


def warnings(route: Route) -> Iterator[str]:
    """Settings of a route that have no effect."""
    always = {"operation"} if isinstance(route.target, Record) else {"operation", "workflow_id", "namespace"}
    for name in sorted(route.own - always):
        if not means_something(name, route.target.operation):
            yield f"{name.removesuffix('_s')} means nothing to {route.target.operation}"


def means_something(field: str, operation: str) -> bool:
    """Whether an operation looks at a field."""
    if operation == Record.operation:
        return False
    starts = operation in ("start_workflow", "signal_with_start_workflow")
    signals = operation in ("signal_workflow", "signal_with_start_workflow")
    match field:
        case "signal":
            return signals
        case "signal_arguments":
            return operation == "signal_with_start_workflow"
        case "arguments":
            return starts or signals
        case "run_id":
            return not starts
        case "reason":
            return not starts and not signals
        case "on_duplicate":
            return operation == "start_workflow"
        case _:
            return starts
