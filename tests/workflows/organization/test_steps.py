"""What holds of single steps and of the ports, without a workflow around them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import asyncpg
import orjson
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Record
from outbox_workflows.organization.activities import OrganizationActivities
from outbox_workflows.organization.dns import FileDns, NameRefused
from outbox_workflows.organization.types import Bootstrap, Site, UndoBootstrap
from outbox_workflows.organization.validation import faults
from outbox_workflows.shared.arguments import begun
from outbox_workflows.shared.database import open_application
from outbox_workflows.shared.mail import FileMailer
from outbox_workflows.shared.saga_types import Undo
from tests.support.running import fetch
from tests.support.sql import connected
from tests.workflows.organization.conftest import CHAIN_OF, INITIATED, INVITED, ROOT, ROUTES, Organization

INSERT = "insert into app.event (tenant_id, stream, type, data) values ($1, 's', $2, $3)"


async def step(activity: Any, argument: object, name: str) -> Any:
    """Run an activity as this step of one workflow."""
    environment = ActivityEnvironment()
    environment.info = replace(
        ActivityEnvironment.default_info(), workflow_id="w", activity_id=name, activity_type=name
    )
    return await environment.run(activity, argument)


async def test_a_frozen_worker_that_comes_back_after_the_end_leaves_nothing(
    application_database: str, tmp_path: Path
) -> None:
    bootstrap = Bootstrap(str(uuid4()), str(uuid4()), "s", "Acme", "acme", INVITED)
    dns = FileDns(tmp_path, "example.test", "app.example.test")
    async with open_application(application_database, "outbox", size=2) as application:
        activities = OrganizationActivities(application, FileMailer(tmp_path), dns)
        await step(activities.create, Site(bootstrap, "acme.example.test"), "create-organization")
        for undoing, undone in [
            (activities.revoke_invitations, "create-invitations"),
            (activities.remove_dns, "configure-dns"),
        ]:
            order = UndoBootstrap(bootstrap, Undo(bootstrap.tenant_id, undone, "system", "cancelled"))
            assert await step(undoing, order, f"undo-{undone}") is False
        for late, argument, name in [
            (activities.configure_dns, bootstrap, "configure-dns"),
            (activities.invite, Site(bootstrap, "acme.example.test"), "create-invitations"),
        ]:
            with pytest.raises(ApplicationError, match="undone"):
                await step(late, argument, name)
    assert list(tmp_path.rglob("*.zone")) == []
    assert await fetch(application_database, "select from app.invitation") == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"organization_id": 42}, "organization_id must be a UUID"),
        ({"organization_id": None}, "organization_id must be a UUID"),
        ({"name": " "}, "name must be one line"),
        ({"name": 42}, "name must be one line"),
        ({"subdomain": 7}, "subdomain must be one DNS label"),
        ({"name": "two\nlines"}, "name must be one line"),
        ({"subdomain": "Acme.Ltd"}, "subdomain must be one DNS label"),
        ({"invitations": "ada@example.org"}, "invitations must be an array"),
        ({"invitations": ["ada@example.org"] * 101}, "invitations must be at most 100"),
        ({"invitations": ["Ada <ada@example.org>"]}, "plain e-mail addresses"),
        ({"invitations": ["ada@example.org\nBcc: all@example.org"]}, "plain e-mail addresses"),
        ({"invitations": [42]}, "plain e-mail addresses"),
        ({"tenant_id": "another's"}, "leave them out"),
    ],
)
async def test_an_unusable_initiating_event_is_refused_at_insert_and_by_the_workflow(
    application_database: str, wrong: dict[str, Any], says: str
) -> None:
    said = Organization().data(*INVITED) | wrong
    _, [fault] = begun(Bootstrap, [{"tenant_id": str(uuid4()), "stream": "s"} | said], faults)
    assert says in fault or fault.startswith((*wrong, "tenant_id")), "a wrong type is reported in other words"
    data = orjson.dumps(said).decode()
    with pytest.raises(asyncpg.InvalidParameterValueError, match=f"^{INITIATED}: .*{says}"):
        await fetch(application_database, INSERT, uuid4(), INITIATED, data)
    assert await fetch(application_database, "select from outbox.message") == []


async def test_the_statements_in_the_documents_begin_a_bootstrap_and_read_its_chain(application_database: str) -> None:
    [_, section] = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8").split("\n## Organisations\n")
    begin, read = re.findall(r"```sql\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    async with connected(application_database) as connection:
        await connection.execute(begin)
        enter, select = read.removeprefix("begin;").removesuffix("commit;\n").split(";", 1)
        async with connection.transaction():
            await connection.execute(enter)
            [first] = await connection.fetch(select)
    assert (first["event"], first["status"], first["ms_since_first"]) == (INITIATED, "pending", 0)


async def test_the_chain_of_another_tenant_is_never_seen(application_database: str) -> None:
    one, other = uuid4(), uuid4()
    for tenant_id in (one, other):
        await fetch(application_database, INSERT, tenant_id, "organization.renamed", "{}")

    async def seen_by(tenant_id: UUID | None) -> list[UUID]:
        async with application.as_tenant(tenant_id) as connection:  # type: ignore[arg-type]
            return [row[0] for row in await connection.fetch("select tenant_id from app.event_chain")]

    async with open_application(application_database, "outbox", size=1) as application:
        assert await seen_by(one) == [one]
        assert await seen_by(None) == []
    assert await fetch(application_database, "select from app.event_chain") == [], "not even a superuser's, unentered"


async def test_a_function_in_a_question_does_not_see_another_tenant_s_chain(application_database: str) -> None:
    one, other = uuid4(), uuid4()
    for tenant_id in (one, other):
        await fetch(application_database, INSERT, tenant_id, "organization.renamed", "{}")
    reported: list[str] = []
    async with connected(application_database) as connection, connection.transaction():
        await connection.execute(
            """create function public.look(uuid) returns boolean language plpgsql stable cost 0.0001 as
            $$ begin raise warning 'saw %', $1; return true; end $$"""
        )
        connection.add_log_listener(lambda _, message: reported.append(message.message))
        await connection.execute("select app.enter($1)", one)
        await connection.execute("set local enable_indexscan = off; set local enable_bitmapscan = off")
        assert len(await connection.fetch("select from app.event_chain where public.look(tenant_id)")) == 1
    assert reported == [f"saw {one}"]


async def test_a_chain_is_read_by_indexes_however_long_the_history(application_database: str) -> None:
    async with connected(application_database) as connection:
        await connection.execute("set enable_seqscan = off")  # the planner uses no index on tables this small
        await connection.execute("select set_config('app.tenant_id', $1, false)", str(uuid4()))
        plan = await connection.fetch(f"explain {CHAIN_OF}", "organization-7")
    text = "\n".join(row[0] for row in plan)
    for index in ("event_stream", "message_pkey", "message_id_idx", "dead_letter_pkey"):
        assert index in text
    assert "Seq Scan on" not in text.replace("Seq Scan on worker", "")


def test_the_routes_that_are_shipped_start_one_workflow_and_record_the_rest() -> None:
    routes = Routes.load(ROUTES)
    assert [route.target.operation for route in routes.all] == ["start_workflow", *["record"] * 3]
    assert routes.without_task_queue() == []
    found = routes.match("organization.invitation.sent")
    assert found is not None
    assert found.target == Record()


async def test_of_owners_that_want_one_name_at_once_one_has_it(tmp_path: Path) -> None:
    dns = FileDns(tmp_path, "example.test", "app.example.test")
    refused: list[str] = []

    async def want(owner: str) -> None:
        try:
            assert await dns.configure("acme", owner) == "acme.example.test"
        except NameRefused:
            refused.append(owner)

    owners = [str(uuid4()) for _ in range(8)]
    async with anyio.create_task_group() as tasks:
        for owner in owners:
            tasks.start_soon(want, owner)
    [winner] = set(owners) - set(refused)
    await dns.remove("acme", refused[0])
    assert await dns.configure("acme", winner) == "acme.example.test"  # a repetition changes nothing
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.read_text() == f"acme 300 IN CNAME app.example.test. ; {winner}\n"
    await dns.remove("acme", winner)
    await dns.remove("acme", winner)
    assert not file.exists()


@pytest.mark.parametrize("label", ["", "Acme", "../acme", "a.b", "-a", "a" * 64])
async def test_what_is_no_label_is_no_name(tmp_path: Path, label: str) -> None:
    with pytest.raises(NameRefused, match="is no name below"):
        await FileDns(tmp_path, "example.test", "t").configure(label, "owner")
    assert not (tmp_path / "example.test").exists()
