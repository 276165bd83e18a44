"""What a measured stretch costs PostgreSQL, and other processes of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from outbox.database import Connection

_COUNTERS = """
select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal_bytes,
       blks_hit + blks_read as buffers, xact_commit as transactions
from pg_stat_database where datname = current_database()
"""
_SERVER = """
select pg_backend_pid() as pid, inet_client_addr() is null or inet_client_addr() = inet_server_addr() as is_here
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """PostgreSQL's own counters, for the whole database. Backends add theirs within a second, or when they end."""

    wal_bytes: int
    buffers: int
    """Pages asked for, in memory or not."""
    transactions: int

    @classmethod
    async def read(cls, connection: Connection) -> Self:
        """Read them now."""
        await connection.execute("select pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
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


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds that a process and its children have taken, those that ended included."""
    times = process.cpu_times()
    total: float = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.Error:  # it ended just now
            continue
    return total
