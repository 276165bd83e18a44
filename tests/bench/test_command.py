"""`outbox bench`, run as its users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import asyncpg
import orjson
import pytest
from anyio import to_thread
from typer.testing import CliRunner

from outbox.model.errors import ConfigurationError
from outbox_bench.cli.command import app
from outbox_bench.cli.consent import ask_for
from outbox_bench.scenarios.registry import SCENARIOS, name_of
from tests.support.commands import run
from tests.support.running import counts, fetch, running

OUTBOX = str(Path(sys.executable).parent / "outbox")
NAMES = [name_of(scenario) for scenario in SCENARIOS]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(["bench", *arguments], env={**os.environ, "COLUMNS": "200", **environment}, timeout_s=150)


@pytest.mark.parametrize("name", [*NAMES, "gates", "all", "show"])  # `gates`: a former name
def test_every_scenario_explains_itself(name: str) -> None:
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [name, "--help"], prog_name="outbox bench")
    assert done.exit_code == 0, done.output
    assert f"outbox bench {name}" in done.output
    assert "--plots" in done.output


def test_what_was_measured_is_shown_kept_and_shown_again(database: str, tmp_path: Path) -> None:
    done = bench("restricted", "--brief", "--dsn", database, "--json", str(tmp_path))
    assert done.returncode == 0, done.stderr
    kept = orjson.loads((tmp_path / "restricted.json").read_bytes())
    assert kept["report"]["scenario"] == "restricted"
    assert all(figure["runs"] for figure in kept["report"]["figures"])
    assert "brief: a trial of the benchmark" in done.stdout
    again = bench("show", str(tmp_path / "restricted.json"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == done.stdout.strip()


async def test_messages_that_wait_are_not_emptied_without_consent(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("select outbox.enqueue('mine', '{}')")
    await connection.close()
    done = bench("restricted", "--brief", "--dsn", database)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "1 unsettled messages are in the outbox" in line
    assert "--yes" in line
    assert sum((await counts(database)).values()) == 1


async def test_only_a_worker_that_lives_keeps_the_benchmarks_away(database: str) -> None:
    ask = partial(to_thread.run_sync, partial(ask_for, database, yes=True))
    killed = "insert into outbox.worker (name, version, state, detail, presence) values ('killed', '1', 'running', '{}', 4711)"
    await fetch(database, killed)
    await ask()
    async with running(database, worker_name="living"):
        with pytest.raises(ConfigurationError, match=r"a worker runs on .* \(living\)"):
            await ask()
    await ask()


def test_ctrl_c_keeps_what_was_measured(database: str, tmp_path: Path) -> None:
    command = [OUTBOX, "bench", "restricted", "--dsn", database, "--json", str(tmp_path / "kept.json")]
    sizes = ["--waiting", "500", "--duration", "0.5", "--runs", "1000"]
    with subprocess.Popen([*command, *sizes], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "run 2:" in line:
                break
        running.send_signal(signal.SIGINT)
        shown, rest = running.communicate(timeout=120)
    assert running.returncode == 130, rest
    assert "interrupted after" in shown
    kept = orjson.loads((tmp_path / "kept.json").read_bytes())
    assert kept["interrupted"] is True
    assert kept["report"]["figures"][0]["runs"]


def test_plots_without_matplotlib_name_the_extra(tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    done = bench("restricted", "--brief", "--plots", str(tmp_path / "plots"), PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "outbox: --plots needs an extra: pip install 'temporal-outbox[bench]' (not here)\n"
