"""What the wake-up costs whoever enqueues: commits a second with NOTIFY off, on, and in cheaper designs.

PostgreSQL takes a database-wide lock while a transaction that notified commits, so commits queue behind each other.

    python -m bench.notify_cost [--seconds S] [--runs N] [--dsn DSN]

Each run measures every design at every number of connections, one after the other, with one session listening; the
table shows medians, and each design's ratio to "off" from the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections import defaultdict
from time import perf_counter

import asyncpg

from outbox.migrate import migrate
from workflows.embedded import PostgresServer

CONNECTIONS = (1, 4, 16)
RING = """
create or replace function outbox.ring() returns trigger language plpgsql as $$
begin
    {body}
    return null;
end $$
"""
DESIGNS = {
    "off": "",
    "per statement": "perform pg_notify(tg_table_schema || '_wakeup', '');",
    "one of those in flight": """
        if pg_try_advisory_xact_lock(hashtextextended('outbox.ring', 0)) then
            perform pg_notify(tg_table_schema || '_wakeup', '');
        end if;""",
    "while somebody sleeps": """
        if exists (select from outbox.bench_sleeper where asleep) then
            perform pg_notify(tg_table_schema || '_wakeup', '');
        end if;""",
}
"""The second is what is installed. The last is measured with nobody asleep: the best that it can do."""


async def commits_a_second(dsn: str, connections: int, seconds: float) -> float:
    """Commit single enqueues on so many connections for a while."""
    opened = [await asyncpg.connect(dsn) for _ in range(connections)]
    done = 0

    async def produce(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        nonlocal done
        statement = await connection.prepare("select outbox.enqueue('bench', '{}')")
        while perf_counter() < end_s:
            await statement.fetchval()
            done += 1

    began_s = perf_counter()
    end_s = began_s + seconds
    await asyncio.gather(*map(produce, opened))
    took_s = perf_counter() - began_s
    for connection in opened:
        await connection.close()
    return done / took_s


async def measure(dsn: str, seconds: float, runs: int) -> None:
    """Print the table."""
    await migrate(dsn)
    admin = await asyncpg.connect(dsn)
    await admin.execute("create unlogged table outbox.bench_sleeper as select false as asleep")
    listener = await asyncpg.connect(dsn)
    heard = 0

    def hear(*_: object) -> None:
        nonlocal heard
        heard += 1

    await listener.add_listener("outbox_wakeup", hear)
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    notified: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(runs):
        for connections in CONNECTIONS:
            for design, body in DESIGNS.items():
                await admin.execute("truncate outbox.message")
                await admin.execute(RING.format(body=body))
                heard = 0
                rate = await commits_a_second(dsn, connections, seconds)
                rates[design, connections].append(rate)
                notified[design, connections].append(heard / (rate * seconds))
    print("design                   " + "".join(f"{n:>12} conn.            " for n in CONNECTIONS))
    for design in DESIGNS:
        cells = []
        for n in CONNECTIONS:
            ratio = statistics.median(a / b for a, b in zip(rates[design, n], rates["off", n], strict=True))
            share = statistics.median(notified[design, n])
            cells.append(f"{statistics.median(rates[design, n]):8,.0f}/s ×{ratio:.2f} ({share:4.0%} heard)")
        print(f"{design:24} " + "   ".join(cells))


def main() -> None:
    """Measure on an embedded server with fsync on, or on the given one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dsn")
    options = parser.parse_args()
    if options.dsn:
        asyncio.run(measure(options.dsn, options.seconds, options.runs))
        return
    with PostgresServer.start() as server:
        asyncio.run(measure(server.dsn(), options.seconds, options.runs))


if __name__ == "__main__":
    main()
