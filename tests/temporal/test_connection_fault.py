"""What a failed connection to Temporal says."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from anyio import run_process

from outbox.model.sink import SinkContext, Unavailable
from outbox_temporal.sdk.client import connect
from outbox_temporal.sink.connection_fault import TemporalUnreachable, explain
from outbox_temporal.sink.sink import open_sink
from tests.cli.test_cli import outbox


@pytest.mark.parametrize(
    ("text", "cause", "setting"),
    [
        ("ConnectError(Os { kind: ConnectionRefused })", "refused, nothing listens there", "TEMPORAL_ADDRESS"),
        ("dns error: failed to lookup address", "the name is not known", "TEMPORAL_ADDRESS"),
        ("received corrupt message of type InvalidContentType", "it speaks no TLS there", "TEMPORAL_TLS"),
        ("InvalidCertificate(NotValidForName)", "the server's certificate is for another name", "TEMPORAL_TLS_SERVER"),
        ('Status { message: "go away" }', "go away", "TEMPORAL_ADDRESS"),
    ],
)
def test_the_sdks_text_becomes_a_cause_and_a_setting(text: str, cause: str, setting: str) -> None:
    found = explain(text)
    assert found.cause == cause
    assert found.cure.startswith(setting)


@pytest.mark.parametrize(
    ("make", "cause", "setting"),
    [
        ("x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key", "is of X.509 version 1", "CERT_PATH"),
        ("x509 -in ca.crt -outform der", "the client's certificate cannot be read", "CERT_PATH"),
        ("x509 -in ca.crt", "the client's key is not that of its certificate", "KEY_PATH"),
    ],
    ids=["version 1", "no PEM", "other key"],
)
async def test_faults_of_the_clients_certificate_are_named_as_the_clients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: str, cause: str, setting: str
) -> None:
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca",
        "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=client",
        f"{make} -out leaf.crt",
    ):
        await run_process(["openssl", *command.split()], cwd=tmp_path)
    with socket.create_server(("localhost", 0)) as server:
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"localhost:{server.getsockname()[1]}")
        monkeypatch.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", str(tmp_path / "leaf.crt"))
        monkeypatch.setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", str(tmp_path / "leaf.key"))
        with pytest.raises(TemporalUnreachable) as raised:
            await connect()
    assert "server's certificate" not in str(raised.value)
    assert cause in str(raised.value)
    assert f"check TEMPORAL_TLS_CLIENT_{setting};" in str(raised.value)


def test_a_servers_certificate_of_version_1_is_named_as_the_servers() -> None:
    found = explain("(Transport, ConnectError(Custom { error: InvalidCertificate(Other(UnsupportedCertVersion)) }))")
    assert found.cause.startswith("the server's certificate is of X.509 version 1")


async def test_a_failed_connect_is_one_line_with_cause_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(TemporalUnreachable) as raised:
        await connect()
    assert str(raised.value) == (
        "Temporal cannot be reached: 127.0.0.1:1: refused, nothing listens there: check TEMPORAL_ADDRESS; "
        "`outbox doctor` says more"
    )


async def test_the_sink_says_why_it_has_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    async with open_sink(SinkContext(identity="test", deliver_timeout_s=5)) as sink:
        assert await sink.probe() == Unavailable("NOT_CONNECTED", "refused, nothing listens there")


async def test_the_demo_without_temporal_fails_in_one_line(database: str) -> None:
    done = await outbox(database, "demo", "--orders", "10", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert done.code == 1
    [line] = done.err.splitlines()
    assert line.startswith("outbox: Temporal cannot be reached: 127.0.0.1:1: refused, nothing listens there")
