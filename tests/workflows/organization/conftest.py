"""Organisations from the committed row to the end: a relay, a Temporal worker, and gates in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as Email
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import Interceptor, Worker

from outbox.model.events import Buried
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink import temporal_sink
from outbox_workflows.organization.activities import OrganizationActivities
from outbox_workflows.organization.definitions import WORKFLOWS
from outbox_workflows.organization.dns import FileDns
from outbox_workflows.shared.database import open_application
from outbox_workflows.shared.mail import FileMailer, Mailer
from tests.support.eventually import eventually
from tests.support.running import Running, fetch, running
from tests.support.sandbox import SANDBOX
from tests.support.shared import SharedServer
from tests.support.sql import connected

ROOT = Path(__file__).parents[3]
ROUTES = ROOT / "workflows" / "outbox_workflows" / "outbox.toml"
INVITED = ["ada@example.org", "bob@example.org"]
ZONE = "example.test"

EVENTS = {
    "announce": "organization.bootstrap.workflow_started",
    "configure-dns": "organization.dns.configured",
    "create-organization": "organization.created",
    "create-invitations": "organization.invitation.created",
    "send-invitation-1": "organization.invitation.sent",
    "complete": "organization.bootstrap.completed",
}
"""The event that each step enqueues, in the transaction of its effect."""
INITIATED = "organization.bootstrap.initiated"
CHAIN = [
    INITIATED,
    "organization.bootstrap.workflow_started",
    "organization.dns.configured",
    "organization.created",
    *["organization.invitation.created"] * 2,
    *["organization.invitation.sent"] * 2,
    "organization.bootstrap.completed",
]
"""The chain of a bootstrap with two invitations that succeeds."""
GATE = """
create table public.gate (stream text, type text, refuse boolean);
create function public.at_gate() returns trigger language plpgsql security definer as $$
declare
    refuse boolean := (select g.refuse from public.gate g where g.stream = new.stream and g.type = new.type);
begin
    if refuse then
        raise exception 'refused at the gate';
    elsif not refuse then
        perform pg_advisory_xact_lock_shared(4711);
    end if;
    return new;
end $$;
create trigger at_gate before insert on app.event for each row execute function public.at_gate();
"""
WAITING = """
select count(*) from pg_locks l join pg_database d on d.oid = l.database
where d.datname = current_database() and l.locktype = 'advisory' and l.objid = 4711 and not l.granted
"""
CHAIN_OF = "select * from app.event_chain where stream = $1 order by seq"


@dataclass
class Organization:
    """One with an initiated bootstrap."""

    organization_id: UUID = field(default_factory=uuid4)
    tenant_id: UUID = field(default_factory=uuid4)
    subdomain: str = field(default_factory=lambda: f"acme-{uuid4().hex[:8]}")
    event_id: UUID = field(default_factory=uuid4)
    """The event that began it; the id of its message, too."""
    patience: dict[str, float] = field(default_factory=dict)

    @property
    def workflow_id(self) -> str:
        return f"org-bootstrap-{self.organization_id}"

    @property
    def stream(self) -> str:
        return f"organization-{self.organization_id}"

    def data(self, *invitations: str) -> dict[str, Any]:
        """What the event says."""
        return {
            "organization_id": str(self.organization_id),
            "name": "Acme Ltd",
            "subdomain": self.subdomain,
            "invitations": list(invitations),
            "patience": self.patience,
        }


class Gates:
    """The gates of a database, closed."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def reached(self, count: int = 1) -> None:
        """Return once so many transactions stand at a gate."""
        await eventually(lambda: self._connection.fetchval(WAITING), lambda waiting: waiting == count)

    async def open(self) -> None:
        """Let them through."""
        await self._connection.execute("select pg_advisory_unlock(4711)")


class House:
    """One database with its relay, one task queue, and what the activities leave in files."""

    def __init__(self, dsn: str, client: Client, task_queue: str, folder: Path) -> None:
        self.dsn, self.client, self.task_queue, self.folder = dsn, client, task_queue, folder
        self.relay: Running | None = None

    @asynccontextmanager
    async def running(self, mailer: Mailer | None = None, *interceptors: Interceptor) -> AsyncIterator[None]:
        """Have messages delivered and workflows worked on."""
        async with self.relaying(), self.serving(mailer, *interceptors):
            yield

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """Have messages delivered."""
        async with running(self.dsn, factory=temporal_sink) as self.relay:
            yield
            assert self.relay.log.of(Buried) == []

    @asynccontextmanager
    async def serving(self, mailer: Mailer | None = None, *interceptors: Interceptor) -> AsyncIterator[None]:
        """Have workflows worked on."""
        async with open_application(self.dsn, "outbox", size=8) as application:
            activities = OrganizationActivities(application, mailer or self.mailer, self.dns)
            worker = Worker(
                self.client,
                task_queue=self.task_queue,
                workflows=WORKFLOWS,
                activities=activities.all(),
                interceptors=interceptors,
                workflow_runner=SANDBOX,
            )
            async with serving(worker):
                yield

    @property
    def mailer(self) -> FileMailer:
        return FileMailer(self.folder / "mail")

    @property
    def dns(self) -> FileDns:
        return FileDns(self.folder / "dns", ZONE, "app.example.test")

    async def initiate(self, *invitations: str, **chosen: Any) -> Organization:
        """Commit the row that begins a bootstrap."""
        made = Organization(**chosen)
        await fetch(
            self.dsn,
            "insert into app.event (event_id, tenant_id, stream, type, data) values ($1, $2, $3, $4, $5)",
            *(made.event_id, made.tenant_id, made.stream, INITIATED, orjson.dumps(made.data(*invitations)).decode()),
        )
        return made

    async def started_directly_ms(self) -> float:
        """Milliseconds from a call of Temporal's client to the workflow's own event: what there is without an outbox."""
        made = Organization()
        said = made.data() | {"tenant_id": str(made.tenant_id), "stream": made.stream}
        [before] = await fetch(self.dsn, "select clock_timestamp() as now")
        handle = await self.client.start_workflow(
            "OrganizationBootstrap", said, id=made.workflow_id, task_queue=self.task_queue
        )
        await handle.result()
        [first, *_] = await self.chain(made)
        return (first["occurred_at"] - before["now"]).total_seconds() * 1000

    def handle(self, organization: Organization) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(organization.workflow_id)

    async def delivered(self, message_id: UUID) -> None:
        """Return once the relay has this message behind it."""
        relay = self.relay
        assert relay is not None
        await relay.log.wait_until(lambda: message_id in relay.completed, what=f"message {message_id}")

    async def end(self, organization: Organization) -> Any:
        """The workflow's result, or the error that it ended with."""
        await self.delivered(organization.event_id)
        try:
            return await self.handle(organization).result()
        except WorkflowFailureError as error:
            return error.cause

    async def chain(self, organization: Organization) -> list[asyncpg.Record]:
        """The chain of an ended bootstrap, once all its messages are settled."""

        async def look() -> list[asyncpg.Record]:
            async with connected(self.dsn) as connection, connection.transaction():
                await connection.execute("select app.enter($1)", organization.tenant_id)
                return await connection.fetch(CHAIN_OF, organization.stream)

        return await eventually(look, lambda rows: all(row["settled_at"] for row in rows))

    async def events(self, organization: Organization) -> list[str]:
        """The types of the chain's events."""
        return [row["event"] for row in await self.chain(organization)]

    async def status(self, organization: Organization) -> tuple[str, str | None]:
        """The organisation's status, and its reason."""
        [row] = await fetch(
            self.dsn,
            "select status, reason from app.organization where organization_id = $1",
            organization.organization_id,
        )
        return tuple(row)

    async def invitations(self, organization: Organization) -> dict[str, str]:
        """The invitations' status by address. That none can be accepted unasked is seen to here."""
        rows = await fetch(
            self.dsn,
            "select email, status, token from app.invitation where organization_id = $1 order by email",
            organization.organization_id,
        )
        assert all((row["token"] is None) == (row["status"] != "pending") for row in rows)
        return {row["email"]: row["status"] for row in rows}

    def names(self) -> dict[str, str]:
        """The zone: name and what its file says."""
        files = [path for path in (self.folder / "dns").rglob("*") if path.is_file()]
        return {path.name.removesuffix(".zone"): path.read_text() for path in files}

    def mails(self) -> list[Email]:
        """The mails that were sent, by recipient."""
        files = (self.folder / "mail").glob("*.eml")
        return sorted((message_from_bytes(path.read_bytes(), policy=default) for path in files), key=lambda m: m["To"])

    async def gate(self, organization: Organization, event: str, *, refuse: bool) -> None:
        """Make the database refuse an event, and with it its step, or keep it waiting at closed gates."""
        insert = "insert into public.gate (stream, type, refuse) values ($1, $2, $3)"
        await fetch(self.dsn, insert, organization.stream, event, refuse)

    @asynccontextmanager
    async def closed_gates(self) -> AsyncIterator[Gates]:
        """Stop each session at a gate until the gates are opened or the block ends."""
        async with connected(self.dsn) as connection:
            await connection.execute("select pg_advisory_lock(4711)")
            yield Gates(connection)


@pytest.fixture
async def house(
    application_database: str,
    temporal_server: SharedServer,
    temporal_client: Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> House:
    task_queue = f"organizations-{uuid4()}"
    routes = tmp_path / "outbox.toml"
    routes.write_text(ROUTES.read_text().replace('"outbox-workflows"', f'"{task_queue}"'))
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    monkeypatch.setenv("OUTBOX_ROUTES", str(routes))
    await fetch_all(application_database, GATE)
    return House(application_database, temporal_client, task_queue, tmp_path)


async def fetch_all(dsn: str, statements: str) -> None:
    """Run several statements."""
    async with connected(dsn) as connection:
        await connection.execute(statements)
