"""What a benchmark ran on: the machine, the servers, the versions, and the revision of this code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.service import RPCError

from outbox_bench.load.in_process import connected
from outbox_bench.load.lab import Lab
from outbox_temporal.sdk.client import connect

_PACKAGES = ("temporal-outbox", "asyncpg", "temporalio", "anyio", "uvloop", "orjson")
_PARAMETERS = (
    "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_level", "max_connections",
)  # fmt: skip


async def describe(lab: Lab) -> dict[str, Any]:
    """Everything, of servers only those that were in use."""
    dsn, address = lab.servers
    return {
        **machine(),
        "postgresql": await _postgresql(dsn) if dsn else None,
        "temporal": await _temporal() if address else None,
        "embedded": lab.embedded,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "revision": _revision(),
    }


def machine() -> dict[str, Any]:
    """The machine and the interpreter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


async def _postgresql(dsn: str) -> dict[str, str]:
    async with connected(dsn) as connection:
        rows = await connection.fetch(
            "select name, current_setting(name) as value from pg_settings where name = any ($1)",
            ["server_version", *_PARAMETERS],
        )
    found = {row["name"]: row["value"] for row in rows}
    return {"version": found.pop("server_version"), **found}


async def _temporal() -> dict[str, str] | None:
    """What the frontend says of itself; None if it does not say."""
    try:
        client = await connect()
        return {"version": (await client.workflow_service.get_system_info(GetSystemInfoRequest())).server_version}
    except (RPCError, RuntimeError):  # it is gone by now; a benchmark's figures are worth keeping without it
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Git's name for this code, `+` if it was changed since; None outside of a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
