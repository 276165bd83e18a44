"""Tries the image as a restricted pod would run it, on real servers.

That is: as process 1 of its own process namespace, as the user `nobody` without privileges, on a root file system that
cannot be written, not even /tmp, and with the image's own environment and nothing else. The network is the host's.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from time import monotonic, sleep
from typing import Any

import anyio
import psutil
import psycopg
from temporalio.client import Client

from outbox import __version__

RATE, COMMITTED = 200, 1000
GREATEST_DRAIN_S = 10.0

_AS_A_POD = """
set -e
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" "$root" env --ignore-environment "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its mounted root, what it says about itself, and a folder for logs."""

    root: Path
    config: dict[str, Any]
    logs: Path

    def command(self, *arguments: str, **settings: str) -> list[str]:
        """What runs the image with these arguments; its own command without any."""
        start = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        pod = ["sh", "-c", _AS_A_POD, "sh", str(self.root), self.config["User"]]
        where = f"--chdir={self.config['WorkingDir']}"
        return [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            *pod,
            where,
            *self.environment(settings),
            *start,
        ]

    def environment(self, settings: dict[str, str]) -> list[str]:
        """The image's own environment, and these settings."""
        return [*self.config["Env"], *(f"{name}={value}" for name, value in settings.items())]

    def run(self, *arguments: str, **settings: str) -> str:
        """Run a command that must succeed, and return what it printed."""
        done = subprocess.run(self.command(*arguments, **settings), capture_output=True, text=True, timeout=120)
        insist(done.returncode == 0, f"outbox {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout


class Process:
    """A long-running command in the image: the image's own, `outbox run`, or another."""

    def __init__(self, image: Image, log: Path, arguments: tuple[str, ...], settings: dict[str, str]) -> None:
        self.log = log
        command = image.command(*arguments, **settings)
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def logged(self, message: str) -> dict[str, Any] | None:
        """The log's first line with this message, if it is there."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return next((line for line in lines if line["message"] == message), None)

    def stop(self) -> float:
        """Send SIGTERM to process 1, as a kubelet does; return the seconds that it took to end, which it must with 0."""
        began_s = monotonic()
        [first] = psutil.Process(self.process.pid).children()
        first.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        insist(code == 0, f"process 1 ended with {code} on SIGTERM; its log is {self.log}")
        return monotonic() - began_s


def try_out(image: Image, dsn: str, address: str) -> Iterator[tuple[str, object]]:
    """Try everything, and report what was found; ends the program at the first claim that fails."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    servers = {"DATABASE_URL": dsn, "TEMPORAL_ADDRESS": address, "OUTBOX_HTTP_PORT": port}
    insist(image.config["User"].split(":")[0] not in ("", "0", "root"), "the image runs as root")
    insist(image.run("--version").split() == ["outbox", __version__], "the image holds another version")
    for command in (["migrate"], ["doctor"], ["workflows", "migrate"], ["bench", "--help"]):
        image.run(*command, **servers)
        yield f"outbox {' '.join(command)}", "exit 0"
    with running(image, "workflows", servers, "workflows", "run") as worker:
        wait_for(lambda: worker.logged("workflow worker started"), "the workflow worker starts", worker)
        yield "outbox workflows run", f"exit 0 {worker.stop():.1f} s after SIGTERM"
    yield from stop_under_load(image, servers)
    left = count(dsn, "outbox.message")
    with running(image, "second", servers) as second:
        wait_for(lambda: count(dsn, "outbox.message") == 0, "the rest is delivered", second)
        second.stop()
    yield "left for the next relay", f"{left} of {COMMITTED}"
    delivered = count(dsn, "outbox.history where outcome = 'delivered'")
    started = anyio.run(partial(count_workflows, address))
    yield "committed, delivered, started", f"{COMMITTED}, {delivered}, {started}"
    insist(delivered == started == COMMITTED, "what was committed is not what was started")


def stop_under_load(image: Image, servers: dict[str, str]) -> Iterator[tuple[str, object]]:
    """Stop a relay while a producer commits; it must give back what it had claimed."""
    dsn = servers["DATABASE_URL"]
    producer = threading.Thread(target=commit_starts, args=(dsn,), daemon=True)
    with running(image, "first", servers) as first:
        wait_for(lambda: first.logged("worker started"), "the worker starts", first)
        producer.start()
        wait_for(lambda: count(dsn, "outbox.history") >= COMMITTED // 4, "a quarter is delivered", first)
        yield "health check", health(image, first, servers)
        took_s = first.stop()
    yield f"SIGTERM under {RATE} commits/s", f"exit 0 after {took_s:.1f} s"
    insist(took_s <= GREATEST_DRAIN_S, f"the relay took {took_s:.1f} s to drain")
    drained = first.logged("drained")
    insist(drained and not drained["abandoned"], f"deliveries were abandoned: {drained}")
    insist(count(dsn, "outbox.message where leased_until > now()") == 0, "leases are left behind")
    producer.join()


def health(image: Image, relay: Process, servers: dict[str, str]) -> str:
    """Run the image's own health check beside process 1, as a container's runtime does."""
    command = image.config["Healthcheck"]["Test"][1:]
    [first] = psutil.Process(relay.process.pid).children()
    inside = ["nsenter", f"--target={first.pid}", "--mount", "--pid", "--root", "--", "env", "--ignore-environment"]
    inside += image.environment(servers)
    done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=30)
    insist(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return "exit 0"


@contextmanager
def running(image: Image, name: str, servers: dict[str, str], *arguments: str) -> Iterator[Process]:
    """A relay, or another process, for the block; afterwards what is left of it is killed."""
    worker = Process(image, image.logs / f"{name}.log", arguments, {"OUTBOX_WORKER_NAME": name, **servers})
    try:
        yield worker
    finally:
        worker.process.kill()  # and process 1 with it
        worker.process.wait()


def commit_starts(dsn: str) -> None:
    """Commit so many starts, each in its own transaction, at a steady rate."""
    began_s = monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(COMMITTED):
            sleep(max(0.0, began_s + number / RATE - monotonic()))
            connection.execute(
                "select outbox.start_workflow('Anything', %s, 'null', task_queue => 'unserved')",
                [f"container-{number}"],
            )


def count(dsn: str, what: str) -> int:
    """How many rows."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"select count(*) from {what}").fetchone()
        return row[0] if row else 0


async def count_workflows(address: str) -> int:
    """How many executions Temporal lists, once it lists as many as it should; its list is a little behind."""
    client = await Client.connect(address)
    found = 0
    with anyio.move_on_after(30):
        while found < COMMITTED:
            found = (await client.count_workflows("WorkflowType = 'Anything'")).count
            await anyio.sleep(0.2)  # how often the list is read: no event says when it has caught up
    return found


def wait_for(look: Callable[[], object], what: str, process: Process, timeout_s: float = 120.0) -> None:
    """Look until it is so; fail when the time is up or the process is gone."""
    end_s = monotonic() + timeout_s
    while not look():
        late = process.process.poll() is not None or monotonic() > end_s
        insist(not late, f"not within {timeout_s:.0f} s: {what}; its log is {process.log}")
        sleep(0.05)


def insist(holds: object, claim: str) -> None:
    """End with one line unless it holds."""
    if not holds:
        raise SystemExit(f"container: {claim}")
