"""Asks the worker on this machine how it is. Nothing but the standard library: a container's check comes for ever."""

from __future__ import annotations

import json
import os
import re
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from outbox.model.errors import ConfigurationError, OutboxError

_TIMEOUT_S = 3.0
_WELL = re.compile("ok(: |$)")
_LOOPBACK = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class Health(NamedTuple):
    """Whether the worker is well, and a line about it."""

    well: bool
    line: str


def ask(*, live: bool) -> Health:
    """Ask `/readyz`, or `/livez`. Raises OutboxError when no worker answers, bounded by three seconds a step."""
    host, port = _address()
    path, word = ("/livez", "live") if live else ("/readyz", "ready")
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        parts: dict[str, Any] = json.loads(answer.read())["parts"]
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise OutboxError(f"no worker answers at {host}:{port}: {reason}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutboxError(f"something else than a worker answers at {host}:{port}") from error
    finally:
        connection.close()
    faults = [f"{part}: {' '.join(reason.split())}" for part, reason in parts.items() if not _WELL.match(reason)]
    return Health(answer.status == HTTPStatus.OK, f"not {word}: {'; '.join(faults)}" if faults else word)


def _address() -> tuple[str, int]:
    """Where the worker serves. The environment is looked at first: reading all settings takes ten times as long."""
    port, host = os.environ.get("OUTBOX_HTTP_PORT", ""), os.environ.get("OUTBOX_HTTP_HOST") or "*"
    if not port.isdecimal():
        from outbox.config.settings import load  # noqa: PLC0415 - see above

        settings = load()
        port, host = str(settings.http_port), settings.http_host
    if not int(port):
        raise ConfigurationError("OUTBOX_HTTP_PORT is not set: that is where a worker serves its health")
    return _LOOPBACK.get(host, host), int(port)
