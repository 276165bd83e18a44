"""A call of one of the SQL functions, made ready for any driver.

Every value leaves as text and is cast in the statement. So no codec that the caller has registered on the connection
encodes it a second time, and every driver sends the same. What a value may be is for the SQL functions to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from outbox.model.schema_name import validated_schema
from outbox.producer.payloads import json_text
from outbox.producer.trace import current_trace, traced

NOTHING: Final = object()
"""Marks an argument that was left out, because None means JSON's null."""

_MESSAGE = {
    "key": "text",
    "headers": "json",
    "message_id": "uuid",
    "dedup_key": "text",
    "available_at": "timestamptz",
    "priority": "integer",
    "tenant": "text",
    "commit_order": "boolean",
    "dedup_window": "interval",
    "expires_at": "timestamptz",
    "on_expiry": "text",
}
_WORKFLOW = _MESSAGE | dict.fromkeys(("workflow_id", "namespace", "topic"), "text")
_RUN = _WORKFLOW | {"run_id": "text"}
_END = _RUN | {"reason": "text"}
_NEW_RUN = (
    _WORKFLOW
    | dict.fromkeys(("workflow", "task_queue", "id_reuse_policy", "id_conflict_policy"), "text")
    | dict.fromkeys(("execution_timeout", "run_timeout", "task_timeout", "start_delay"), "interval")
    | dict.fromkeys(("input", "args", "retry_policy", "memo", "search_attributes"), "json")
)
PARAMETERS: Final[Mapping[str, Mapping[str, str]]] = {
    "enqueue": _MESSAGE | {"topic": "text", "payload": "json", "target": "json"},
    "enqueue_many": {"messages": "json"},
    "start_workflow": _NEW_RUN | {"on_duplicate": "text"},
    "signal_workflow": _RUN | {"signal": "text", "input": "json", "args": "json"},
    "signal_with_start_workflow": _NEW_RUN | {"signal": "text", "signal_input": "json", "signal_args": "json"},
    "cancel_workflow": _END,
    "terminate_workflow": _END,
    "cancel": {"message_id": "uuid"},
}
"""The SQL functions' parameters and their SQL types."""

_PYTHON_TYPES = {
    "text": str,
    "uuid": UUID,
    "timestamptz": datetime,
    "interval": timedelta,
    "integer": int,
    "boolean": bool,
}


class Call(NamedTuple):
    """A function of the schema and the text of its arguments, by name."""

    function: str
    values: dict[str, str]

    def statement(self, placeholder: str) -> str:
        """Return the SQL, one text a row, with placeholders such as `%s`, `${place}` or `:{name}`."""
        return _statement(self.function, tuple(self.values), placeholder)


def new_call(function: str, schema: str, arguments: Mapping[str, object], options: Mapping[str, object]) -> Call:
    """Encode a call. Left out are arguments that are NOTHING and options that are None; `headers` get the trace."""
    types = PARAMETERS[function]
    given = {name: value for name, value in arguments.items() if value is not NOTHING}
    given |= {name: value for name, value in options.items() if value is not None}
    if "headers" in types and (headers := traced(given.get("headers"), current_trace())) is not None:
        given["headers"] = headers
    values = {}
    for name, value in given.items():
        if name not in types:
            raise TypeError(f"{function}() takes no argument {name!r}: use {', '.join(types)}")
        values[name] = _encoded(name, value, types[name])
    return Call(f"{validated_schema(schema)}.{function}", values)


def new_messages(messages: Iterable[object]) -> list[object]:
    """Return the messages of `enqueue_many` as they are sent, each as `new_call` would have it."""
    trace = current_trace()
    return [_new_message(place, message, trace) for place, message in enumerate(messages)]


def _new_message(place: int, message: object, trace: Mapping[str, str]) -> object:
    if not isinstance(message, Mapping):
        return message  # for SQL to refuse
    given = {name: value for name, value in message.items() if value is not None or name == "payload"}
    if (headers := traced(given.get("headers"), trace)) is not None:
        given["headers"] = headers
    for name in ("available_at", "expires_at"):
        if isinstance(given.get(name), datetime):
            given[name] = _instant(f"messages[{place}]: {name}", given[name])
    if isinstance(given.get("dedup_window"), timedelta):
        given["dedup_window"] = _interval(given["dedup_window"])
    return given


def _encoded(name: str, value: object, sql_type: str) -> str:
    """Return a value as text that PostgreSQL reads as this type."""
    if sql_type in ("json", "jsonb"):
        return json_text(name, value)
    wanted = _PYTHON_TYPES[sql_type]
    if not isinstance(value, wanted):
        raise TypeError(f"{name} must be a {wanted.__name__}, it is a {type(value).__qualname__}")
    if isinstance(value, datetime):
        return _instant(name, value)
    if isinstance(value, timedelta):
        return _interval(value)
    return str.__str__(value) if isinstance(value, str) else str(value)  # an Enum of strings would print its name


def _interval(value: timedelta) -> str:
    """As hours, minutes and seconds: before PostgreSQL 15 no field of an interval may exceed 32 bits."""
    seconds, microseconds = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    sign = "-" if value < timedelta(0) else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{microseconds:06}"


def _instant(name: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError(f"{name} has no time zone, so it is no instant: use datetime.now(UTC) or give it a tzinfo")
    return value.isoformat()


@lru_cache(maxsize=512)
def _statement(function: str, names: tuple[str, ...], placeholder: str) -> str:
    types = PARAMETERS[function.rpartition(".")[2]]
    arguments = ", ".join(
        f"{name} => cast(cast({placeholder.format(place=place, name=name)} as text) as {types[name]})"
        for place, name in enumerate(names, start=1)
    )
    return f"select cast(answer as text) from {function}({arguments}) as answer"  # noqa: S608 - names from PARAMETERS, the schema validated
