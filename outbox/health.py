"""The command `outbox health`: asks the worker on this machine how it is, for a container's health check."""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Annotated, Any

import orjson
import typer

from outbox import config
from outbox.errors import ConfigurationError, OutboxError

_TIMEOUT_S = 3.0
_EVERYWHERE = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def health(
    live: Annotated[
        bool, typer.Option("--live", help="Ask only whether its loops turn, not whether it can deliver.")
    ] = False,
) -> None:
    """Ask the worker on this machine whether it is ready; exit 0 if it is, 1 if not, and say why in one line."""
    settings = config.load()
    if not settings.http_port:
        raise ConfigurationError("OUTBOX_HTTP_PORT is not set: a worker serves its health at that port")
    host = _EVERYWHERE.get(settings.http_host, settings.http_host)
    well, line = _ask(host, settings.http_port, "/livez" if live else "/readyz", "live" if live else "ready")
    sys.stdout.write(f"{line}\n")
    if not well:
        raise typer.Exit(1)


def _ask(host: str, port: int, path: str, word: str) -> tuple[bool, str]:
    """Whether the worker is well, and a line about it."""
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise OutboxError(f"no worker answers at {host}:{port}: {reason}") from error
    finally:
        connection.close()
    try:
        parts: dict[str, Any] = orjson.loads(body)["parts"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise OutboxError(f"something else than a worker answers at {host}:{port}, status {answer.status}") from error
    faults = [f"{part}: {' '.join(reason.split())}" for part, reason in parts.items() if reason != "ok"]
    return answer.status == HTTPStatus.OK, f"not {word}: {'; '.join(faults)}" if faults else word
