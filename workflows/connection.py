"""The connection to Temporal, configured by Temporal's own variables and profiles (`temporalio.envconfig`)."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client
from temporalio.envconfig import ClientConfigProfile

CONNECT_TIMEOUT_S = 5.0


async def connect(*, lazy: bool = False) -> Client:
    """Connect as the environment says; `lazy` does not wait for the server, and cannot serve a worker."""
    settings = ClientConfigProfile.load().to_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    return await Client.connect(**settings, lazy=lazy, connect_timeout=timedelta(seconds=CONNECT_TIMEOUT_S))
