"""Lets a workflow worker go on with a login that is rotated while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from loguru import logger
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from outbox.model.errors import ConfigurationError
from outbox_temporal.sink.frontend import given

_EVERY_S = 5.0


async def follow(
    worker: Worker, connect: Callable[[], Awaitable[Client]], *, read: Callable[[], dict[str, Any]] = given
) -> None:
    """Give the worker a new client whenever Temporal's settings give something else. Runs until it is cancelled.

    What cannot be used, such as a file that is half written or a login that is refused, is tried again.
    """
    used: object = None
    while True:
        try:
            found = read()
            if used is None:
                used = found
            elif found != used:
                worker.client = await connect()
                used = found
                logger.info("connected to Temporal again: its settings have changed")
        except (ConfigurationError, RPCError, RuntimeError) as error:
            logger.bind(kind=type(error).__name__).warning("Temporal's changed settings cannot be used yet")
        await anyio.sleep(_EVERY_S)
