"""What a measured stretch costs PostgreSQL, and other processes of this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio
import psutil

from outbox_bench.load.definitions import NAME

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_LEAVE_TIMEOUT_S = 5.0
_COUNTERS = """
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal_bytes,
       blks_hit + blks_read as buffers, xact_commit as transactions
from pg_stat_database where datname = current_database()
"""
_AT_WORK = "select count(*) from pg_stat_activity where application_name like $1"
_SERVER = """
select pg_backend_pid() as pid, inet_client_addr() is null or inet_client_addr() = inet_server_addr() as is_here
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """PostgreSQL's own counters, for the whole database."""

    wal_bytes: int
    buffers: int
    """Pages requested, in memory or not."""
    transactions: int

    @classmethod
    async def read(cls, connection: Connection) -> Self:
        """Read them once all of our workers have left: a session's counters are added when it ends at the latest."""
        with anyio.move_on_after(_LEAVE_TIMEOUT_S):
            while await connection.fetchval(_AT_WORK, f"outbox {NAME}%"):  # noqa: ASYNC110 - nothing notifies us
                await anyio.sleep(0.02)
        if connection.get_server_version().major < 15:  # there a process of its own adds them, now and then
            await anyio.sleep(1.0)
        [row] = await connection.fetch(_COUNTERS)
        return cls(**dict(row))

    def __sub__(self, other: Self) -> Counters:
        return Counters(
            self.wal_bytes - other.wal_bytes, self.buffers - other.buffers, self.transactions - other.transactions
        )


async def postgres_process(connection: Connection) -> psutil.Process | None:
    """The server's main process, if it runs on this machine and may be seen."""
    [row] = await connection.fetch(_SERVER)
    try:
        backend = psutil.Process(row["pid"])
        return backend.parent() if row["is_here"] and "postgres" in backend.name() else None
    except psutil.Error:
        return None


class Processor:
    """The processor time that a process and its children take from now on, those that ended included."""

    def __init__(self, process: psutil.Process | None) -> None:
        self._process = process
        self.spent_s = -self._taken_s()
        """Seconds until `stop`, of all processors together."""

    def stop(self) -> None:
        """Take the time. Children that end at this very moment may be missed: stop before they do."""
        self.spent_s += self._taken_s()

    def _taken_s(self) -> float:
        if self._process is None:
            return 0.0
        times = self._process.cpu_times()
        total: float = times.user + times.system + times.children_user + times.children_system
        for child in self._process.children():
            with suppress(psutil.Error):  # it ended just now
                total += sum(child.cpu_times()[:2])
        return total
