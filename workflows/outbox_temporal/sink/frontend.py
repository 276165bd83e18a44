"""The way to Temporal's frontend, by Temporal's own variables and profiles (`temporalio.envconfig`).

`outbox_temporal.sdk.client` makes the SDK's client of it. The relay needs none: importing it takes a third of a
second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.converter import DataConverter
from temporalio.envconfig import ClientConfigProfile
from temporalio.runtime import Runtime
from temporalio.service import ConnectConfig, GrpcCompression, KeepAliveConfig, ServiceClient, TLSConfig

from outbox.model.errors import ConfigurationError
from outbox_temporal.sink import settings

DEFAULT_ADDRESS = "localhost:7233"
DEFAULT_NAMESPACE = "default"
_ADDRESS = re.compile(r"[^\s:/@]+:[0-9]{1,5}|\[[0-9A-Fa-f:.%]+\]:[0-9]{1,5}")
_YES_OR_NO = ("true", "false", "1", "0")
KEEP_ALIVE = KeepAliveConfig(interval_millis=11_000, timeout_millis=5_000)
"""Temporal's frontend ends connections that ping more often than every ten seconds (`frontend.keepAliveMinTime`)."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """A connection, and what is to be said over it."""

    service: ServiceClient
    namespace: str
    converter: DataConverter


async def reach(
    *,
    identity: str | None = None,
    lazy: bool = False,
    connect_timeout_s: float = 5.0,
    runtime: Runtime | None = None,
) -> Frontend:
    """Connect as the environment says. `lazy` does not wait for the server, and cannot serve a worker.

    Raises ConfigurationError for settings that cannot be used, RuntimeError when the server cannot be reached.
    """
    own = settings.load()
    chosen = given()
    namespace = chosen.pop("namespace")
    gzip = own.compression == "gzip" or (own.compression == "auto" and bool(chosen.get("tls")))
    service = await ServiceClient.connect(
        ConnectConfig(
            **chosen,
            identity=identity or "",
            lazy=lazy,
            connect_timeout=timedelta(seconds=connect_timeout_s),
            keep_alive_config=KEEP_ALIVE,
            grpc_compression=GrpcCompression.GZIP if gzip else GrpcCompression.NONE,
            runtime=runtime,
        )
    )
    return Frontend(service, namespace, own.converter())


def profile() -> ClientConfigProfile:
    """What Temporal's variables and profile file say. Raises ConfigurationError."""
    environment = {name: value for name, value in os.environ.items() if value}  # empty is not set, as everywhere here
    named = environment.get("TEMPORAL_CONFIG_FILE")
    if named and not Path(named).is_file():  # the SDK passes over a missing file in silence
        raise ConfigurationError(f"TEMPORAL_CONFIG_FILE is {named!r}: there is no such file")
    if environment.get("TEMPORAL_TLS", "true").lower() not in _YES_OR_NO:  # the SDK takes any other word for yes
        raise ConfigurationError(f"TEMPORAL_TLS is {environment['TEMPORAL_TLS']!r}: write true or false")
    if environment.get("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "").lower() in ("1", "true"):  # the SDK drops it
        raise ConfigurationError(
            "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION is not supported by Temporal's Python SDK: unset it, and name the "
            "certificate's host in TEMPORAL_TLS_SERVER_NAME or its authority in TEMPORAL_TLS_SERVER_CA_CERT_PATH"
        )
    with _named_as_temporals():
        return ClientConfigProfile.load(config_file_strict=True, override_env_vars=environment)


def given() -> dict[str, Any]:
    """The options that Temporal's settings give now; their files are read. Raises ConfigurationError."""
    return options(profile())


def options(found: ClientConfigProfile) -> dict[str, Any]:
    """The same as arguments of the connection, and the namespace. Raises ConfigurationError.

    The SDK would look at an address and a certificate when it connects, which is when the first message is delivered.
    """
    with _named_as_temporals():
        chosen: dict[str, Any] = {"target_host": DEFAULT_ADDRESS, "namespace": DEFAULT_NAMESPACE}
        chosen |= dict(found.to_client_connect_config())
    address = str(chosen["target_host"])
    if not _ADDRESS.fullmatch(address) or not 0 < int(address.rpartition(":")[2]) < 65536:
        raise ConfigurationError(f"TEMPORAL_ADDRESS is {address!r}: write host:port, as in temporal:7233")
    tls = chosen.get("tls")
    if isinstance(tls, TLSConfig) and (tls.client_cert is None) != (tls.client_private_key is None):
        raise ConfigurationError(
            "of Temporal's client certificate one half is missing: set both TEMPORAL_TLS_CLIENT_CERT_PATH and "
            "TEMPORAL_TLS_CLIENT_KEY_PATH, or …_DATA"
        )
    return chosen


@contextmanager
def _named_as_temporals() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigurationError(f"Temporal's settings (TEMPORAL_…) cannot be used: {error}") from error
