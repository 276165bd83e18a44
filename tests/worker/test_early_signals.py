"""A signal that comes while the process starts is not lost, also where the process is the first of its container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio import to_thread

from outbox.loops import early_signals as early
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)
ENDS_WITHIN_S = 45.0
SINK = {"OUTBOX_SINK": "tests.support.sinks:null_sink", "OUTBOX_LOG_FORMAT": "json"}
FIRST = ["unshare", "--pid", "--fork", "--kill-child"]
"""Runs a program as process 1 of a namespace of its own."""


@pytest.fixture(autouse=True)
def default_sighup() -> Iterator[None]:
    """Children inherit what this process does with SIGHUP, and the tests themselves may run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Starting:
    """A process that starts, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, *, first: bool) -> None:
        self._process, self._log, self._first = process, log, first

    @property
    def pid(self) -> int | None:
        """The worker's own, once there is one."""
        if not self._first:
            return self._process.pid
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def hears(self, number: signal.Signals = signal.SIGTERM) -> bool:
        """Whether its handler of a signal is installed."""
        return self._has("SigCgt:", number)

    def ignores(self, number: signal.Signals) -> bool:
        """Whether a signal is ignored."""
        return self._has("SigIgn:", number)

    def _has(self, which: str, number: signal.Signals) -> bool:
        masks = [int(line.split()[1], 16) for line in self._status() if line.startswith(which)]
        return any(mask & 1 << (number - 1) for mask in masks)

    def has_loaded(self, library: str) -> bool:
        """Whether it has loaded a shared library with this in its path."""
        try:
            return library in Path(f"/proc/{self.pid}/maps").read_text()
        except OSError:
            return False

    def says(self, words: str) -> bool:
        """Whether its log has these words."""
        return words in self._log.read_text()

    def _status(self) -> list[str]:
        try:
            return Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return []

    async def ended(self, number: signal.Signals) -> int:
        """Send a signal to it, and return its exit code."""
        assert self.pid is not None
        os.kill(self.pid, number)
        return await to_thread.run_sync(self._process.wait, ENDS_WITHIN_S)


@contextmanager
def starting(log: Path, *command: str, first: bool, **environment: str) -> Iterator[Starting]:
    """Start a process, and kill what is left of it."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*(FIRST if first else ()), sys.executable, "-m", "outbox", *command],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield Starting(process, log, first=first)
    finally:
        process.kill()
        process.wait()


MOMENTS = {
    "it hears": lambda it: it.hears(),
    "the library is loaded": lambda it: it.hears() and it.has_loaded("/_datetime."),
    "the driver is loaded": lambda it: it.has_loaded("/asyncpg/"),
    "the loop is loaded": lambda it: it.has_loaded("/uvloop/"),
    "it works": lambda it: it.says('"worker started"'),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("first", [False, True], ids=["ordinary", "process 1"])
async def test_sigterm_at_any_moment_of_the_start_ends_with_exit_code_0(
    database: str, tmp_path: Path, moment: str, *, first: bool
) -> None:
    if first and (os.geteuid() != 0 or shutil.which("unshare") is None):
        pytest.skip("a PID namespace needs root and the program unshare")
    with starting(tmp_path / "log", "run", first=first, DATABASE_URL=database, **SINK) as it:

        async def reached() -> bool:
            return MOMENTS[moment](it)

        await eventually(reached, lambda is_there: is_there)
        assert await it.ended(signal.SIGTERM) == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("command", [("run",), ("workflows", "run")], ids=" ".join)
async def test_sighup_at_the_first_moment_ends_with_exit_code_0(
    application_database: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    own = SINK | {"DATABASE_URL": application_database, "OUTBOX_WORKFLOWS_MAIL": f"file:{tmp_path}"}
    own["OUTBOX_WORKFLOWS_DNS_FOLDER"] = str(tmp_path)
    with starting(tmp_path / "log", *command, first=False, **own) as it:

        async def hears() -> bool:
            return it.hears()

        await eventually(hears, lambda is_there: is_there)
        assert await it.ended(signal.SIGHUP) == 0, (tmp_path / "log").read_text()


async def test_sighup_drains_and_is_ignored_where_nohup_says_so(database: str, tmp_path: Path) -> None:
    async def works() -> bool:
        return it.says('"worker started"')

    with starting(tmp_path / "log", "run", first=False, DATABASE_URL=database, **SINK) as it:
        await eventually(works, lambda is_there: is_there)
        assert await it.ended(signal.SIGHUP) == 0
        assert it.says('"drained"')
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit it, as from `nohup`
    try:
        with starting(tmp_path / "nohup", "run", first=False, DATABASE_URL=database, **SINK) as it:
            await eventually(works, lambda is_there: is_there)
            assert it.ignores(signal.SIGHUP)
            assert await it.ended(signal.SIGTERM) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("command", [["run"], ["workflows", "run"], ["run", "--mode", "poll"]], ids=" ".join)
def test_signals_work_before_anything_else_is_loaded(command: list[str]) -> None:
    program = f"""
import os, runpy, signal, sys
before = set(sys.modules)
def heard(number, handler):
    loaded = {{name for name in set(sys.modules) - before if not name.startswith(("_", "outbox", "encodings"))}}
    os.write(1, " ".join(sorted(loaded)).encode())
    os._exit(0)
signal.signal = heard
sys.argv = ["outbox", *{command!r}]
runpy.run_module("outbox", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.split()) < 8, done.stdout


def test_other_commands_keep_the_default_handlers() -> None:
    assert not early.asked()
    program = "import signal, sys; sys.argv = ['outbox', '--version']; import outbox.__main__ as m; m.main()"
    hook = "signal = __import__('signal'); signal.signal = lambda *_: print('taken'); "
    done = subprocess.run(
        [sys.executable, "-c", hook + program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("outbox ")
