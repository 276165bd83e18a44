"""What may be passed, and the one line that says what is wrong with what may not."""

from __future__ import annotations

import enum
import inspect
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import psycopg
import pydantic
import pytest
import sqlalchemy
import sqlalchemy.orm

from outbox import producer
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.producer import PayloadError, enqueue, enqueue_many, options, start_workflow
from outbox.producer.calls import PARAMETERS
from tests.postgres.producers.conftest import Rows
from tests.postgres.producers.libraries import Caller

AN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


class Colour(enum.Enum):
    RED = "red"


class Topic(str, enum.Enum):  # noqa: UP042 - its str() is not its value, which is the point
    ORDERS = "orders"


class Address(pydantic.BaseModel):
    city: str
    post_code: str = pydantic.Field(alias="postCode")
    opened: date
    share: Decimal = Decimal("0.10")


@dataclass(frozen=True, slots=True)
class Order:
    id: UUID
    lines: list[tuple[str, int]]
    colour: Colour
    address: Address | None = None


HOME = Address(city="Köln", postCode="50667", opened=date(2020, 2, 29))
HOME_JSON = '{"city":"Köln","postCode":"50667","opened":"2020-02-29","share":"0.10"}'


PAYLOADS: list[tuple[object, str]] = [
    ({"b": 1, "a": [True, None, 1.5, "ü"]}, '{"b":1,"a":[true,null,1.5,"ü"]}'),
    (None, "null"),
    ("text", '"text"'),
    ([], "[]"),
    ((1, 2), "[1,2]"),
    (0, "0"),
    (False, "false"),
    ({1: "a", AN_ID: "b", Colour.RED: "c"}, f'{{"1":"a","{AN_ID}":"b","red":"c"}}'),
    (AN_ID, f'"{AN_ID}"'),
    (AT, '"2026-01-02T03:04:05.000006+00:00"'),
    (Decimal("1.10"), '"1.10"'),
    (Colour.RED, '"red"'),
    (float("nan"), "null"),
    (MappingProxyType({"a": OrderedDict(b=1)}), '{"a":{"b":1}}'),
    (HOME, HOME_JSON),
    ([{"home": HOME}], f'[{{"home":{HOME_JSON}}}]'),
    (
        Order(AN_ID, [("tea", 2)], Colour.RED, HOME),
        f'{{"id":"{AN_ID}","lines":[["tea",2]],"colour":"red","address":{HOME_JSON}}}',
    ),
    (orjson.Fragment('{"as":  "it is", "n": 1.00}'), '{"as":  "it is", "n": 1.00}'),
]


def test_payload_arrives_byte_for_byte(plain: Caller, rows: Rows) -> None:
    singly = [plain.call(enqueue, "t", payload) for payload, _ in PAYLOADS]
    together = plain.call(enqueue_many, [{"topic": "t", "payload": payload} for payload, _ in PAYLOADS])
    plain.commit()
    written = rows()
    for ids in (singly, together):
        assert [written[i]["payload"] for i in ids] == [text for _, text in PAYLOADS]


def test_pydantic_model_is_written_as_it_is_read() -> None:
    assert Address.model_validate_json(HOME_JSON) == HOME


@pytest.mark.parametrize(
    ("options", "arguments", "payload"),
    [
        ({}, "none", None),
        ({"input": None}, "one", "null"),
        ({"args": None}, "none", None),
        ({"args": [None]}, "many", "[null]"),
        ({"args": ()}, "many", "[]"),
    ],
)
def test_none_is_an_argument_and_nothing_is_none(
    plain: Caller, rows: Rows, options: dict[str, Any], arguments: str, payload: str | None
) -> None:
    message_id = plain.call(start_workflow, "W", "w", **options)
    plain.commit()
    row = rows()[message_id]
    assert (row["target"]["arguments"], row["payload"]) == (arguments, payload)


def test_message_without_payload_has_none(plain: Caller, rows: Rows) -> None:
    ids = [plain.call(enqueue, "t"), *plain.call(enqueue_many, [{"topic": "t"}])]
    plain.commit()
    assert [rows()[i]["payload"] for i in ids] == [None, None]


def test_none_is_the_default_in_every_option(plain: Caller, rows: Rows) -> None:
    nothing = dict.fromkeys(options.StartOptions.__annotations__)
    message_id = plain.call(start_workflow, "W", "w", **nothing)
    plain.commit()
    row = rows()[message_id]
    assert (row["topic"], row["headers"], row["priority"]) == ("W", {}, 0)
    assert row["target"] == {"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "arguments": "none"}


def test_enum_of_strings_is_its_value(plain: Caller, rows: Rows) -> None:
    message_id = plain.call(enqueue, Topic.ORDERS, key=Topic.ORDERS)
    plain.commit()
    assert rows()[message_id]["topic"] == rows()[message_id]["key"] == "orders"


# Mistakes


UNCONNECTED = sqlalchemy.orm.Session()
"""Each statement over it raises another error."""


class Unknown:
    pass


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (Unknown(), "it holds a Unknown"),
        ({"deep": [Unknown()]}, "it holds a Unknown"),
        (b"bytes", "it holds a bytes"),
        ({1, 2}, "it holds a set"),
        (2**70, "Integer exceeds 64-bit range"),
        ("\ud800", "not valid UTF-8"),
        ({(1, 2): 3}, "Dict key"),
    ],
)
def test_value_without_json_form_is_one_line_that_names_it(payload: object, cause: str) -> None:
    for call in (
        lambda: enqueue(UNCONNECTED, "t", payload),
        lambda: enqueue_many(UNCONNECTED, [{"topic": "t", "payload": payload}]),
    ):
        with pytest.raises(PayloadError) as caught:
            call()
        assert cause in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, OutboxError)


def test_model_that_cannot_write_itself_is_a_payload_error() -> None:
    class Loose(pydantic.BaseModel):
        anything: Any

    with pytest.raises(PayloadError, match="input has no JSON form: .*Unknown"):
        start_workflow(UNCONNECTED, "W", "w", Loose(anything=Unknown()))


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"workflow_id": 42}, TypeError, "workflow_id must be a str, it is a int"),
        ({"workflow_id": None}, TypeError, "workflow_id must be a str, it is a NoneType"),
        ({"message_id": str(AN_ID)}, TypeError, "message_id must be a UUID, it is a str"),
        ({"run_timeout": 5}, TypeError, "run_timeout must be a timedelta, it is a int"),
        ({"priority": "1"}, TypeError, "priority must be a int, it is a str"),
        ({"available_at": "tomorrow"}, TypeError, "available_at must be a datetime, it is a str"),
        ({"available_at": AT.replace(tzinfo=None)}, ValueError, "available_at has no time zone"),
        ({"colour": "red"}, TypeError, r"start_workflow\(\) takes no argument 'colour': use key, headers"),
        ({"topic => null); --": "red"}, TypeError, "takes no argument"),
        ({"memo": {"a": Unknown()}}, PayloadError, "memo has no JSON form"),
        ({"schema": "my schema"}, ConfigurationError, "'my schema' is not usable"),
    ],
)
def test_wrong_argument_is_one_line(options: dict[str, Any], error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line) as caught:
        start_workflow(UNCONNECTED, **({"workflow": "W", "workflow_id": "w"} | options))
    assert "\n" not in str(caught.value)


def test_datetime_without_time_zone_is_found_among_many() -> None:
    with pytest.raises(ValueError, match=r"messages\[1\]: available_at has no time zone"):
        enqueue_many(UNCONNECTED, [{"topic": "t"}, {"topic": "t", "available_at": AT.replace(tzinfo=None)}])


@pytest.mark.parametrize("headers", [[], "text", 5])
def test_headers_that_are_no_object_are_refused_by_sql(plain: Caller, headers: object) -> None:
    with pytest.raises(plain.refusal, match="headers must be a JSON object"):
        plain.call(enqueue, "t", headers=headers)


@pytest.mark.parametrize("messages", [["text"], [None], [{"topic": "t", "colour": "red"}]])
def test_messages_that_are_none_are_refused_by_sql(plain: Caller, messages: list[Any]) -> None:
    with pytest.raises(plain.refusal, match=r"messages\[0\]: (a message must be a JSON object|unknown name 'colour')"):
        plain.call(enqueue_many, messages)


def test_connection_of_an_unknown_kind_is_refused_with_what_is_supported() -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg://")
    for connection in (engine, sqlalchemy.orm.sessionmaker(engine), asyncpg.Pool, "postgresql://", object(), None):
        with pytest.raises(TypeError) as caught:
            enqueue(connection, "t")  # type: ignore[call-overload]
        assert "\n" not in str(caught.value)
        for library in ("asyncpg", "psycopg 3", "SQLAlchemy 2", "Django"):
            assert library in str(caught.value)


def test_subclass_of_a_supported_connection_will_do(database: str, rows: Rows) -> None:
    class Connection(psycopg.Connection[Any]):
        pass

    with Connection.connect(database) as connection:
        message_id = enqueue(connection, "t")
    assert set(rows()) == {message_id}


# Nothing drifts


def test_parameters_are_those_of_the_sql_functions(plain: Caller) -> None:
    for function, parameters in PARAMETERS.items():
        [(names, types)] = plain.connection.execute(
            """
            select proargnames::text[], array(select t::regtype::text from unnest(proargtypes) as t)
            from pg_proc where pronamespace = 'outbox'::regnamespace and proname = %s
            """,
            [function],
        ).fetchall()
        written = {
            name: "timestamptz" if t.startswith("timestamp ") else t for name, t in zip(names, types, strict=False)
        }
        assert written == parameters


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("enqueue", options.EnqueueOptions),
        ("start_workflow", options.StartOptions),
        ("signal_workflow", options.SignalOptions),
        ("signal_with_start_workflow", options.SignalWithStartOptions),
        ("cancel_workflow", options.EndOptions),
        ("terminate_workflow", options.EndOptions),
    ],
)
def test_signatures_name_every_parameter(name: str, typed: type) -> None:
    explicit = set(inspect.signature(getattr(producer, name)).parameters) - {"connection", "schema", "options"}
    assert explicit.isdisjoint(typed.__annotations__)
    assert explicit | set(typed.__annotations__) == set(PARAMETERS[name])


def test_python_has_each_function_that_producers_may_execute(plain: Caller) -> None:
    """But for those that other functions call."""
    rows = plain.connection.execute(
        """
        select distinct proname::text from pg_proc
        where pronamespace = 'outbox'::regnamespace and obj_description(oid, 'pg_proc') is not null
          and proname ~ '^(enqueue|start|signal|cancel|terminate)' and prorettype <> 'trigger'::regtype
        """
    ).fetchall()
    assert {name for [name] in rows} == set(PARAMETERS) == set(producer.__all__) - {"NewMessage", "PayloadError"}


def test_new_message_takes_what_enqueue_takes() -> None:
    assert set(options.NewMessage.__annotations__) == set(PARAMETERS["enqueue"])


def test_import_brings_in_no_driver_and_none_of_the_workers_libraries() -> None:
    """And so it is cheap, for a web application that starts often."""
    strangers = "asyncpg anyio loguru pydantic typer rich uvloop temporalio asyncio"
    strangers += " psycopg sqlalchemy django opentelemetry"
    script = f"import sys, outbox.producer; print(*sorted(set(sys.modules) & set({strangers.split()!r})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
