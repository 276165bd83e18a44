"""The command `outbox routes`: check the routes before a worker uses them. It works without database and Temporal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import orjson
import typer

from outbox.cli.format import aligned
from outbox.model.errors import ConfigurationError
from outbox.model.json_output import json_output
from outbox.model.message import Message
from outbox.model.sink import Rejected
from outbox_temporal.sink import settings
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.sink.frontend import options, profile
from outbox_temporal.target.check import warnings
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Command, Record, Target

app = typer.Typer(help="Check the routes from topics to workflows.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Check the routes from topics to workflows."""


@app.command()
def check(
    file: Annotated[Path | None, typer.Option(help="File of routes; default: OUTBOX_ROUTES, or outbox.toml.")] = None,
    topic: Annotated[str | None, typer.Option(help="Topic of a sample message: show where it would go.")] = None,
    payload: Annotated[str | None, typer.Option(help="The sample's payload as JSON.")] = None,
    key: Annotated[str | None, typer.Option(help="The sample's key.")] = None,
    headers: Annotated[str, typer.Option(help="The sample's headers as a JSON object.")] = "{}",
) -> None:
    """Check the file of routes, every fault at once, and list the routes; or show where a message would go.

    Exit code 2: the file has faults, one line each. Exit code 1: the sample goes nowhere.
    """
    chosen = settings.load()
    path = file or chosen.routes_file()
    if path is None:
        raise ConfigurationError(
            "there are no routes: write outbox.toml here, or name a file with --file or OUTBOX_ROUTES"
        )
    routes = Routes.load(path)
    allowed = Allowed(chosen, str(options(profile())["namespace"]))
    if topic is None:
        if payload is not None or key is not None or headers != "{}":
            raise ConfigurationError("a sample message needs --topic")
        _list(routes, chosen.task_queue, allowed)
    elif not _show(routes, _sample(topic, payload, key, headers), chosen, allowed):
        raise typer.Exit(1)


def _list(routes: Routes, task_queue: str | None, allowed: Allowed) -> None:
    """The routes as a table, and what is doubtful about them."""
    rows = [(str(route.line), route.topic, *_words(route.target, task_queue)) for route in routes.all]
    sys.stdout.writelines(aligned(("line", "topic", "operation", "workflow", "workflow id", "task queue"), rows))
    count = len(routes.all)
    sys.stdout.write(f"{routes.path}: {count} {'route' if count == 1 else 'routes'}, no fault\n")
    queueless = set() if task_queue else {route.topic for route in routes.without_task_queue()}
    for route in routes.all:
        doubts = [*warnings(route)]
        if route.topic in queueless:
            doubts.append("no task_queue: the worker will need OUTBOX_TEMPORAL_TASK_QUEUE")
        if fault := allowed.fault_of_route(route):
            doubts.append(fault)
        for doubt in doubts:
            sys.stdout.write(f"warning: {routes.path}:{route.line}: route {route.topic!r}: {doubt}\n")


def _words(target: Target | Record, task_queue: str | None) -> list[str]:
    """What the table says of a target."""
    if isinstance(target, Record):
        return [target.operation, "", "", ""]
    return [target.operation, target.workflow or "", target.workflow_id, target.task_queue or task_queue or ""]


def _show(routes: Routes, sample: Message, chosen: settings.TemporalSettings, allowed: Allowed) -> bool:
    """Where a sample goes, or why it goes nowhere; return whether it goes anywhere."""
    route, target = routes.match(sample.topic), routes.target_of(sample)
    if isinstance(target, Rejected):
        fate = "left for later" if chosen.unroutable == "leave" else "buried"
        sys.stdout.write(f"{target.kind}: {target.detail}\nthe message would be {fate}\n")
        return False
    assert route is not None
    sys.stdout.write(f"route        {route.topic}  ({routes.path}:{route.line})\n")
    if isinstance(target, Record):
        sys.stdout.write("nothing would be called: the message would go to the history\n")
        return True
    if refused := allowed.refusal(Command(target, target.workflow_id)):
        sys.stdout.write(f"{refused.kind}: {refused.detail}\nthe message would be buried\n")
        return False
    sys.stdout.write(f"workflow id  {target.workflow_id}\n")
    written = {name: getattr(target, name) for name in type(target).model_fields}
    if target.retry_policy is not None:
        written["retry_policy"] = target.retry_policy.model_dump(exclude_none=True)
    if route in routes.without_task_queue():
        written["task_queue"] = chosen.task_queue
    shown = {name: value for name, value in written.items() if value not in (None, {})}
    sys.stdout.write("target       ")
    sys.stdout.flush()
    sys.stdout.buffer.write(json_output(shown, indent=True))
    return True


def _sample(topic: str, payload: str | None, key: str | None, headers: str) -> Message:
    """The message that the flags describe. Raises ConfigurationError for what is not JSON."""
    for name, text in {"--payload": payload, "--headers": headers}.items():
        try:
            parsed = {} if text is None else orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"{name} is not JSON: {error}") from error
        if name == "--headers" and not isinstance(parsed, dict):
            raise ConfigurationError("--headers must be a JSON object")
    return Message(
        message_id=uuid4(),
        seq=1,
        topic=topic,
        key=key,
        payload=payload,
        headers=headers,
        target=None,
        deliveries=1,
        attempts=0,
        setbacks=0,
        age_s=0.0,
        lease_token=1,
    )
