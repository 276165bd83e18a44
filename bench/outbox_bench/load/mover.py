"""A process that moves messages, or starts workflows directly, and reports the result.

`python -m outbox_bench.load.mover relay`, or `raw` or `client` with the number of starts, and of those at once. It
writes `ready` once everything is imported. It begins when it reads a line on its standard input, and ends at the next
line or the end of input. Its output is lines of JSON: `{"moved": n}` for each settled batch, and its `Account` at the
end. `relay` takes the worker's usual settings from the environment, `raw` and `client` TEMPORAL_….
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from time import monotonic, process_time
from typing import TYPE_CHECKING

import anyio

from outbox.cli.session import ask
from outbox.config import settings as config
from outbox.model.events import Buried, Claimed, Completed, Event, LeaseLost, Released, Retried
from outbox.model.json_output import json_output
from outbox.worker.worker import Worker, tune_garbage_collector
from outbox_bench.load.definitions import NAME

if TYPE_CHECKING:
    from outbox_bench.load.direct import Kind


@dataclass(slots=True)
class Account:
    """What a process did, from its first claim or call to its last acknowledgement."""

    moved: int = 0
    began_s: float = 0.0
    """On the machine's monotonic clock, which all processes share."""
    ended_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of all its threads."""
    claims: int = 0
    settlements: int = 0
    """Claim and settle statements."""
    returned: int = 0
    """Messages that were retried, released or buried, or that lost their lease."""


def say(what: object) -> None:
    """Report to the parent process."""
    sys.stdout.buffer.write(json_output(what))
    sys.stdout.flush()


async def signalled() -> bool:
    """Wait for the parent's next line; False at the end."""
    await anyio.wait_readable(sys.stdin)
    return bool(os.read(sys.stdin.fileno(), 100))


class _Watch:
    """A subscriber that keeps the account."""

    def __init__(self) -> None:
        self.account = Account()
        self._cpu_s = 0.0

    def __call__(self, event: Event) -> None:
        account = self.account
        if isinstance(event, Claimed):
            if not account.began_s:
                account.began_s, self._cpu_s = monotonic() - event.took_s, process_time()
            account.claims += 1
        elif isinstance(event, Completed):
            account.moved += len(event.settlements)
            account.settlements += 1
            account.ended_s, account.cpu_s = monotonic(), process_time() - self._cpu_s
            say({"moved": len(event.settlements)})
        elif isinstance(event, Retried | Buried | Released | LeaseLost):
            account.returned += 1


async def relay() -> None:
    """Run a worker until it has to stop."""
    watch = _Watch()
    tune_garbage_collector()
    settings = config.load(worker_name=NAME)
    worker = Worker(settings, config.load_sink(settings.sink), watch)
    say("ready")
    if await signalled():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await signalled()
            worker.stop()
    say(asdict(watch.account))


async def direct(kind: Kind, count: int, concurrency: int) -> None:
    """Start this many workflows without the outbox."""
    from outbox_bench.load.direct import start_many  # noqa: PLC0415 - the SDK: a worker with another sink does without
    from outbox_temporal.sdk.client import connect  # noqa: PLC0415 - as above

    client = await connect(identity=NAME)
    say("ready")
    account = Account()
    if await signalled():
        account.began_s, cpu_s = monotonic(), process_time()
        await start_many(client, kind, count, concurrency)
        account.ended_s, account.cpu_s, account.moved = monotonic(), process_time() - cpu_s, count
        say({"moved": count})
        await signalled()
    say(asdict(account))


async def main() -> None:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["relay"]:
            await relay()
        case ["raw" | "client" as kind, count, concurrency]:
            await direct(kind, int(count), int(concurrency))
        case other:
            raise SystemExit(f"outbox_bench.load.mover: unknown arguments {other}")


if __name__ == "__main__":
    ask(main)
    os._exit(0)  # the SDK's threads may crash in the interpreter's teardown (temporalio/sdk-python#300)
