"""Certificates and keys of Temporal are rotated while a worker runs: it goes on with the new ones, without a restart."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from temporalio.client import Client
from temporalio.worker import Worker

from outbox.model.errors import ConfigurationError
from outbox.model.sink import Delivered, Outcome, Unavailable
from outbox_temporal.sdk import rotation
from outbox_temporal.sdk.client import connect
from outbox_temporal.sdk.rotation import follow
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink import link, temporal_sink
from outbox_temporal.sink.link import Link
from outbox_temporal.sink.sink import TemporalSink
from tests.support.eventually import eventually
from tests.support.shared import SharedServer
from tests.support.tls_front import tls_front
from tests.temporal.conftest import CONTEXT, message, start
from tests.temporal.definitions import Echo

pytestmark = pytest.mark.timeout(60)


class Files:
    """The files that a worker's client certificate stands in."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key, self.root = (directory / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def write(self, clients: trustme.CA) -> None:
        leaf = clients.issue_cert("worker@example.org")
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("in_a_profile", [False, True], ids=["variables", "profile"])
@pytest.mark.parametrize("idle", [False, True], ids=["held", "delivering"])
async def test_client_certificate_that_is_replaced_is_used_without_a_restart(
    temporal_server: SharedServer,
    environment: pytest.MonkeyPatch,
    files: Files,
    workflow_id: str,
    in_a_profile: bool,
    idle: bool,
) -> None:
    server, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    server.cert_pem.write_to_path(str(files.root))
    files.write(before)
    async with tls_front(temporal_server.address, server, before) as front:
        _configure(environment, files, front.port, in_a_profile=in_a_profile)
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)
            await front.trust(after)
            refused = await eventually(lambda: sink.deliver(message(start(f"{workflow_id}-2"))), _is_refused)
            assert isinstance(refused, Unavailable)
            files.write(after)
            if idle:
                environment.setattr(link, "_LOOK_EVERY_S", 0.0)
            else:
                assert await sink.probe() is None
            outcome = await sink.deliver(message(start(f"{workflow_id}-3")))
            assert isinstance(outcome, Delivered), outcome


def _configure(environment: pytest.MonkeyPatch, files: Files, port: int, *, in_a_profile: bool) -> None:
    if not in_a_profile:
        environment.setenv("TEMPORAL_ADDRESS", f"localhost:{port}")
        environment.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(files.root))
        environment.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", str(files.certificate))
        environment.setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", str(files.key))
        return
    profile = files.root.with_name("temporal.toml")
    profile.write_text(
        f'[profile.default]\naddress = "localhost:{port}"\n[profile.default.tls]\n'
        f'server_ca_cert_path = "{files.root}"\nclient_cert_path = "{files.certificate}"\n'
        f'client_key_path = "{files.key}"\n'
    )
    environment.setenv("TEMPORAL_CONFIG_FILE", str(profile))


def _is_refused(outcome: Outcome) -> bool:
    return isinstance(outcome, Unavailable)


async def test_api_key_that_is_replaced_in_the_profile_is_used(
    temporal_server: SharedServer, environment: pytest.MonkeyPatch, tmp_path: Path, workflow_id: str
) -> None:
    profile = tmp_path / "temporal.toml"
    text = f'[profile.default]\naddress = "{temporal_server.address}"\napi_key = "%s"\n[profile.default.tls]\ndisabled = true\n'
    profile.write_text(text % "first")
    environment.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    async with temporal_sink(CONTEXT) as sink:
        assert isinstance(sink, TemporalSink)
        assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)
        assert sink._link.service.config.api_key == "first"
        profile.write_text("half [ written")
        assert await sink.probe() is None, "what cannot be used changes nothing"
        assert sink._link.service.config.api_key == "first"
        profile.write_text(text % "second")
        assert await sink.probe() is None
        assert sink._link.service.config.api_key == "second"
        assert isinstance(await sink.deliver(message(start(f"{workflow_id}-2"))), Delivered)


class Settings:
    """What a link reads, and how often."""

    def __init__(self) -> None:
        self.value: object = {"api_key": "first"}
        self.reads = self.connections = 0
        self.service: Any = object()

    def read(self) -> object:
        self.reads += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    async def reach(self) -> Any:
        self.connections += 1
        return self


async def test_settings_are_read_every_few_seconds_and_connect_only_when_they_change() -> None:
    settings = Settings()
    kept = Link(settings.service, settings.reach, settings.read)
    for _ in range(1000):
        await kept.refresh()
    assert (settings.reads, settings.connections) == (1, 0)
    await kept.refresh(at_once=True)
    assert (settings.reads, settings.connections) == (2, 0)
    settings.value = ConfigurationError("half written")
    await kept.refresh(at_once=True)
    assert settings.connections == 0
    settings.value = {"api_key": "second"}
    await kept.refresh(at_once=True)
    await kept.refresh(at_once=True)
    assert settings.connections == 1


async def test_workflow_worker_goes_on_with_a_certificate_that_is_replaced(
    temporal_server: SharedServer,
    temporal_client: Client,
    environment: pytest.MonkeyPatch,
    files: Files,
    workflow_id: str,
) -> None:
    server, before, after = trustme.CA(), trustme.CA(), trustme.CA()
    server.cert_pem.write_to_path(str(files.root))
    files.write(before)
    environment.setattr(rotation, "_EVERY_S", 0.1)
    async with tls_front(temporal_server.address, server, before) as front:
        _configure(environment, files, front.port, in_a_profile=False)
        worker = Worker(await connect(), task_queue=workflow_id, workflows=[Echo])
        async with serving(worker), anyio.create_task_group() as tasks:
            tasks.start_soon(follow, worker, connect)
            run = partial(temporal_client.execute_workflow, Echo.run, task_queue=workflow_id)
            assert await run(1, id=f"{workflow_id}-1") == [1, None]
            await front.trust(after)
            files.write(after)
            assert await run(2, id=f"{workflow_id}-2") == [2, None]
            tasks.cancel_scope.cancel()
