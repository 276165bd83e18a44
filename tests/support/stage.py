"""Where a family's workflows are played: the application's database, a relay, Temporal, and workers that may die.

A family says in `tests/<family>/scenarios.py` what it consists of (`FAMILY`) and which branches it has (`SCENARIOS`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Interceptor, Worker

from outbox.model.message import Message
from outbox.model.sink import Delivered, Outcome, Sink, SinkContext, Unavailable
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink.frontend import Frontend
from outbox_temporal.sink.sink import TemporalSink
from outbox_workflows.shared.database import Application, open_application
from outbox_workflows.shared.mail import FileMailer, Mailer
from tests.support.eventually import eventually
from tests.support.running import Running, fetch, running
from tests.support.sandbox import SANDBOX


@dataclass(frozen=True)
class Family:
    """What a worker needs to run a family's workflows."""

    workflows: Sequence[type]
    activities: Callable[[Application, Mailer], list[Callable[..., Any]]]


class EarSink:
    """Temporal's sink, but for messages without a target, which are events: those it keeps."""

    def __init__(self, inner: TemporalSink) -> None:
        self._inner = inner
        self.events: list[dict[str, Any]] = []
        """The payloads of all events so far, in the order in which they came."""

    async def deliver(self, message: Message) -> Outcome:
        if message.target is not None:
            return await self._inner.deliver(message)
        self.events.append(orjson.loads(message.payload or "null"))
        return Delivered()

    async def probe(self) -> Unavailable | None:
        return await self._inner.probe()


@dataclass
class Stage:
    """One tenant of a fresh database, a relay and a task queue of its own. Workers come and go by `worker`."""

    family: Family
    dsn: str
    client: Client
    application: Application
    mail_folder: Path
    relay: Running
    ear: EarSink
    tenant_id: UUID = field(default_factory=uuid4)
    task_queue: str = field(default_factory=lambda: f"stage-{uuid4()}")

    @asynccontextmanager
    async def worker(self, *interceptors: Interceptor, **options: Any) -> AsyncIterator[Worker]:
        """A Temporal worker for the block. Its end is hard: activities that run then are cut."""
        worker = Worker(
            self.client,
            task_queue=self.task_queue,
            identity="worker",
            workflows=self.family.workflows,
            activities=self.family.activities(self.application, FileMailer(self.mail_folder)),
            interceptors=interceptors,
            workflow_runner=SANDBOX,
            **options,
        )
        async with serving(worker):
            yield worker

    async def start(self, workflow: str, workflow_id: str, argument: object) -> WorkflowHandle[Any, Any]:
        """Commit a start, and return once the relay has delivered it."""
        statement = "select outbox.start_workflow($1, $2, $3::json, task_queue => $4) as id"
        await self._send(statement, workflow, workflow_id, orjson.dumps(argument).decode(), self.task_queue)
        return self.client.get_workflow_handle(workflow_id)

    async def signal(self, workflow_id: str, signal: str, argument: object) -> None:
        """Commit a signal, and return once the relay has delivered it."""
        statement = "select outbox.signal_workflow($1, $2, $3::json) as id"
        await self._send(statement, workflow_id, signal, orjson.dumps(argument).decode())

    async def cancel(self, workflow_id: str, reason: str = "no longer needed") -> None:
        """Commit a request to cancel, and return once the relay has delivered it."""
        await self._send("select outbox.cancel_workflow($1, $2) as id", workflow_id, reason)

    async def _send(self, statement: str, *arguments: object) -> None:
        [row] = await fetch(self.dsn, statement, *arguments)
        await self.relay.log.wait_until(lambda: row["id"] in self.relay.completed, what="the delivery")

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database as the tenant."""
        async with self.application.as_tenant(self.tenant_id) as connection:
            return await connection.fetch(statement, *arguments)

    async def audited(self, workflow_id: str) -> list[str]:
        """The actions in a workflow's audit trail, in order."""
        statement = "select action from app.audit where workflow_id = $1 order by audit_id"
        return [row["action"] for row in await self.fetch(statement, workflow_id)]

    async def heard(self, last: str) -> list[dict[str, Any]]:
        """The tenant's events as the relay delivered them, once one of the type `last` is among them."""

        async def look() -> list[dict[str, Any]]:
            return [event for event in self.ear.events if event["tenant_id"] == str(self.tenant_id)]

        return await eventually(look, lambda events: any(event["type"] == last for event in events))

    async def refuse(self, action: str) -> None:
        """From now on make the database refuse every step with `action` in its audit entry."""
        await fetch(
            self.dsn,
            """
            create or replace function app.refused_by_a_test() returns trigger language plpgsql as
            $$ begin raise exception 'the database refuses %', new.action using errcode = 'check_violation'; end $$
            """,
        )
        quoted = action.replace("'", "''")
        await fetch(
            self.dsn,
            f"""create trigger "refuse {action}" before insert on app.audit for each row when (new.action = '{quoted}')
                execute function app.refused_by_a_test()""",
        )

    async def accept(self, action: str) -> None:
        """Take `refuse` back."""
        await fetch(self.dsn, f'drop trigger "refuse {action}" on app.audit')

    def mails(self) -> list[EmailMessage]:
        """The mails sent so far, each once, by their ids."""
        found = sorted(self.mail_folder.glob("*.eml")) if self.mail_folder.is_dir() else []
        return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in found]  # type: ignore[misc]

    def break_mail(self) -> None:
        """From now on no mail can be sent; for stages that have sent none."""
        self.mail_folder.write_text("in the way")

    def repair_mail(self) -> None:
        """Let mails be sent again."""
        self.mail_folder.unlink()


Scenario = Callable[[Stage], Awaitable[str]]
"""Plays one branch of a workflow to its end, with or without workers of its own, and returns the workflow id."""
Scenarios = Mapping[str, Scenario]


@asynccontextmanager
async def stage(family: Family, dsn: str, client: Client, mail_folder: Path) -> AsyncIterator[Stage]:
    """A stage on a database with both schemas, without a worker yet. `mail_folder` need not exist."""
    ears: list[EarSink] = []
    frontend = Frontend(client.service_client, client.namespace, client.data_converter)

    @asynccontextmanager
    async def factory(context: SinkContext) -> AsyncIterator[Sink]:
        ears.append(EarSink(TemporalSink(frontend, context)))
        yield ears[0]

    async with (
        open_application(dsn, "outbox", size=8) as application,
        running(dsn, factory=factory, worker_name="relay") as relay,
    ):
        yield Stage(family, dsn, client, application, mail_folder, relay, ears[0])
