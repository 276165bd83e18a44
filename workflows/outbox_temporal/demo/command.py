"""The command `outbox demo`: servers, schema, worker and relay, then the shop, then the count."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Annotated
from uuid import uuid4

import anyio
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from temporalio.worker import Worker as TemporalWorker

from outbox.cli.console import Console
from outbox.config import settings as config
from outbox.loops.signals import cancelled_on_signal
from outbox.model.events import Events
from outbox.observability import logs
from outbox.store.migrations import migrate
from outbox.worker.worker import Worker
from outbox_temporal.demo.definitions import OrderWorkflow
from outbox_temporal.demo.shop import Shop
from outbox_temporal.demo.tally import DemoCounts, DemoResult, compare, percentile_ms
from outbox_temporal.sdk.client import connect
from outbox_temporal.sdk.worker import serving
from outbox_temporal.servers.postgres import PostgresServer, running
from outbox_temporal.servers.temporal import TemporalServer
from outbox_temporal.sink import temporal_sink

_SETTLED_WITHIN_S = 60.0


def demo(
    orders: Annotated[int, typer.Option(help="How many business transactions to run.", min=10, max=100_000)] = 300,
    rate: Annotated[float, typer.Option(help="Transactions a second.", min=1)] = 30.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers running after the demo, until Ctrl-C.")
    ] = False,
) -> None:
    """See it work: orders are committed, and become workflows.

    PostgreSQL and Temporal come from their wheels, in temporary directories. If DATABASE_URL or
    TEMPORAL_ADDRESS is set, the demo uses that server; the outbox schema is then made there, and stays.
    """
    logs.configure("ERROR", "text")
    good = anyio.run(partial(_demo, orders, rate, keep=keep), backend_options={"use_uvloop": os.name == "posix"})
    if not good:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Servers:
    """Where everything runs. `ui_url` is known for the embedded Temporal only."""

    dsn: str
    address: str
    ui_url: str | None


async def _demo(orders: int, rate: float, *, keep: bool) -> bool:
    """Run the demo; Ctrl-C ends it early and in order. Return whether the books agreed."""
    console = Console()
    good = False
    interrupted = partial(console.print, "interrupted: stopping the servers and cleaning up")
    async with cancelled_on_signal(interrupted), _servers(console) as servers:
        good = await _run(console, servers, orders, rate)
        if keep:
            console.print(
                f"still running; Ctrl-C ends it\n  DATABASE_URL={servers.dsn} TEMPORAL_ADDRESS={servers.address}"
            )
            await anyio.sleep_forever()
    return good


@asynccontextmanager
async def _servers(console: Console) -> AsyncIterator[Servers]:
    """The user's own servers if the environment names them, else throwaway ones."""
    began_s = monotonic()
    async with AsyncExitStack() as stack:
        dsn, address, ui_url = os.environ.get("DATABASE_URL"), os.environ.get("TEMPORAL_ADDRESS"), None
        if not dsn:
            dsn = (await stack.enter_async_context(running(PostgresServer.start))).dsn()
        if not address:
            temporal = await stack.enter_async_context(running(partial(TemporalServer.start, in_memory=True)))
            address, ui_url = temporal.address, temporal.ui_url
            os.environ["TEMPORAL_ADDRESS"] = address
        console.print(f"PostgreSQL and Temporal ({address}) ready in {monotonic() - began_s:.1f} s")
        yield Servers(dsn, address, ui_url)


async def _run(console: Console, servers: Servers, orders: int, rate: float) -> bool:
    """Relay, workflow worker and shop together; then the count. Return whether the books agreed."""
    settings = config.load(database_url=servers.dsn)
    await migrate(settings.dsn, settings.schema_name)
    run = uuid4().hex[:8]
    shop = Shop(servers.dsn, settings.schema_name, run, task_queue=f"demo-{run}", orders=orders, rate=rate)
    tally = DemoCounts()
    relay = Worker(settings, temporal_sink, Events(tally))
    client = await connect()
    temporal_worker = TemporalWorker(client, task_queue=shop.task_queue, workflows=[OrderWorkflow])
    async with serving(temporal_worker), anyio.create_task_group() as tasks:
        await tasks.start(relay.run)
        with _live(console, shop, tally) as refresh:
            tasks.start_soon(refresh)
            await shop.trade()
            with anyio.move_on_after(_SETTLED_WITHIN_S):
                await tally.settled(shop)
            relay.stop()
            verdict = await compare(client, shop)
            tasks.cancel_scope.cancel()
    console.print(_report(shop, tally, verdict, servers.ui_url))
    for line in [*tally.buried[:5], *verdict.faults()]:
        console.print(f"[red]{line}[/]")
    return verdict.good and not tally.buried


@contextmanager
def _live(console: Console, shop: Shop, tally: DemoCounts) -> Iterator[Callable[[], Coroutine[None, None, None]]]:
    """Show two bars, for committed and for started messages, and give the task that updates them."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=20) as progress:
        transactions = progress.add_task("transactions", total=shop.orders, note="")
        workflows = progress.add_task("workflows started", total=None, note="")

        def show() -> None:
            note = f"{len(shop.rolled_back)} rolled back, {shop.duplicates} committed twice"
            progress.update(transactions, completed=len(shop.committed) + len(shop.rolled_back), note=note)
            note = f"{tally.duplicates} duplicates suppressed, relay {tally.state}"
            progress.update(workflows, completed=tally.started, total=len(shop.committed), note=note)

        async def refresh() -> None:
            while True:
                show()
                await anyio.sleep(0.05)

        yield refresh
        show()


def _report(shop: Shop, tally: DemoCounts, verdict: DemoResult, ui_url: str | None) -> Table:
    """The table at the end."""
    latencies = tally.latencies_ms(shop)
    table = Table(title="counted in Temporal's own list of executions", show_header=False)
    table.add_row("orders committed", str(len(shop.committed)))
    table.add_row("workflows started", str(verdict.found.total()))
    table.add_row("started twice", str(len(verdict.twice)))
    table.add_row("missing", str(len(verdict.missing)))
    table.add_row("duplicates suppressed", f"{tally.duplicates} of {shop.duplicates} committed")
    table.add_row("rolled back, so absent", f"{len(shop.rolled_back) - len(verdict.ghosts)} of {len(shop.rolled_back)}")
    p50, p95, p99 = (percentile_ms(latencies, percent) for percent in (50, 95, 99))
    table.add_row("commit → start", f"p50 {p50:.1f} ms   p95 {p95:.1f} ms   p99 {p99:.1f} ms")
    if ui_url:
        table.add_row("Temporal's UI", f"{ui_url}/namespaces/default/workflows (with --keep)")
    return table
