"""No password is ever written down: what comes in is a hash, and what is none is refused without repeating it."""

from __future__ import annotations

import sys
from dataclasses import replace

import argon2
import pytest
from anyio import to_thread
from temporalio.client import WorkflowFailureError

from outbox.model.errors import ConfigurationError
from outbox_workflows.tenant.passwords import hashed_password
from outbox_workflows.tenant.types import Admin
from outbox_workflows.tenant.validation import checked, looks_hashed
from tests.support.running import fetch
from tests.support.stage import Stage
from tests.workflows.tenant.scenarios import HASH, create, new_tenant

PASSWORD = "correct horse battery staple"
TABLES = """
select format('%I.%I', table_schema, table_name) as name from information_schema.tables
where table_schema in ('outbox', 'app') and table_type = 'BASE TABLE'
"""


async def written(stage: Stage, workflow_id: str) -> bytes:
    """All that is stored: the workflow's history, and every table of both schemas."""
    history = await stage.client.get_workflow_handle(workflow_id).fetch_history()
    found = [event.SerializeToString() for event in history.events]
    for table in await fetch(stage.dsn, TABLES):
        found += [
            row["line"].encode() for row in await fetch(stage.dsn, f"select t::text as line from {table['name']} t")
        ]
    return b"\n".join(found)


async def test_a_hashed_password_is_stored_nowhere_in_plain_text(stage: Stage) -> None:
    password_hash = await to_thread.run_sync(hashed_password, PASSWORD)
    admin = Admin("ada@acme.example", password_hash=password_hash)
    async with stage.worker():
        handle = await create(stage, admin=admin)
        await handle.result()
    found = await written(stage, handle.id)
    assert PASSWORD.encode() not in found
    assert (
        found.count(password_hash.encode()) >= 4
    )  # the search would find it: in the outbox, twice in the history, in the table


async def test_what_is_no_hash_is_refused_and_not_repeated(stage: Stage) -> None:
    request = new_tenant(stage, admin=Admin("ada@acme.example", password_hash=PASSWORD))
    async with stage.worker():
        handle = await stage.start("TenantCreation", f"creation-{stage.tenant_id}", request)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert "admin.password_hash is not the hash of a password" in caught.value.cause.message
    history = await handle.fetch_history()
    failures = [e for e in history.events if "failed" in e.WhichOneof("attributes")]
    assert len(failures) == 1, "the workflow's: no activity was asked"
    assert not any(PASSWORD.encode() in event.SerializeToString() for event in failures)


async def test_a_request_can_be_checked_before_it_is_written_down(stage: Stage) -> None:
    good = new_tenant(stage)
    assert checked(good) is good
    with pytest.raises(ValueError, match="hash it before the request is written down") as caught:
        checked(replace(good, admin=replace(good.admin, password_hash=PASSWORD)))
    assert PASSWORD not in str(caught.value)
    assert HASH not in repr(good)


def test_a_hash_is_argon2id_and_another_each_time() -> None:
    one, other = hashed_password(PASSWORD), hashed_password(PASSWORD)
    assert one != other
    assert one.startswith("$argon2id$")
    assert argon2.PasswordHasher().verify(one, PASSWORD)
    assert looks_hashed(one)


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        hashed_password("")


def test_without_the_library_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'temporal-outbox\[workflows\]'"):
        hashed_password(PASSWORD)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (HASH, True),
        ("$2b$12$" + "abcdefghijklmnopqrstuvWXYZ./0123456789abcdefghijklmnop0"[:53], True),
        ("$scrypt$ln=17,r=8,p=1$c29tZSBzYWx0IGhlcmU$" + "A" * 43, True),
        ("", False),
        (PASSWORD, False),
        ("$ecret$pa$$word$", False),
        ("$argon2id$v=19$m=65536,t=3,p=4$$", False),
        (HASH + "\n", False),
        ("d41d8cd98f00b204e9800998ecf8427e", False),
    ],
)
def test_a_hash_contains_its_algorithm(text: str, is_one: bool) -> None:
    assert looks_hashed(text) is is_one
