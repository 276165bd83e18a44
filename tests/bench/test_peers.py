import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest
from anyio.abc import TaskStatus

from outbox_bench.load.lab import Lab
from outbox_bench.peers.cache import HERE, Cache
from outbox_bench.peers.process import ContenderFailed, contending
from outbox_bench.peers.race import Drain, Entrant, RaceServers, Trial
from outbox_bench.peers.talk import Marks
from outbox_bench.report.report import Measurements
from outbox_bench.scenarios.peers import OURS, PEERS, Comparison, PeersOptions, measure
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.shared import SharedServer

ROOT = Path(__file__).parents[2]
BRIEF = PeersOptions(jobs=200, drain_limit_s=20, pickups=3, starts=0, runs=1, cache=ROOT / ".bench")

FAKE = """
import asyncio
from outbox_bench.peers.talk import serve_commands, say

async def work(every):
    say(job=1, at_ns=1)
    say(job=every, at_ns=2)

async def fail():
    raise ValueError("no such table")

async def wait():
    await asyncio.Event().wait()

asyncio.run(serve_commands({"work": work, "fail": fail, "wait": wait}))
"""


def fake(program: str = FAKE):
    return contending("fake", [sys.executable, "-c", program], ROOT, {})


def silent(_what: str, _fraction: float) -> None:
    pass


@pytest.fixture(scope="module")
async def cache(anyio_backend: object) -> Cache:
    cache = Cache(ROOT / ".bench")
    if not cache.has_node:
        pytest.skip("the peers are not installed, which takes minutes and the network: make bench-peers")
    await cache.copy_sources()
    return cache


def values(report: Measurements) -> dict[str, float]:
    return {figure.name: figure.value for figure in report.figures}


async def test_marks_report_the_first_job_and_every_nth(capsys: pytest.CaptureFixture[str]) -> None:
    began = Marks(3)
    for _ in range(7):
        began()
    assert [json.loads(line)["job"] for line in capsys.readouterr().out.splitlines()] == [1, 3, 6]


async def test_jobs_that_begin_before_a_command_is_answered_are_not_lost() -> None:
    async with fake() as contender:
        await contender.do("work", 5)
        assert [await contender.begun(), await contender.begun()] == [(1, 1), (5, 2)]


async def test_a_contender_that_fails_says_why() -> None:
    async with fake() as contender:
        with pytest.raises(ContenderFailed, match="fake failed: ValueError: no such table"):
            await contender.do("fail")


async def test_a_contender_that_cannot_start_says_why() -> None:
    with pytest.raises(ContenderFailed, match="fake ended: ModuleNotFoundError: No module named 'pgqueuer_gone'"):
        async with fake("import pgqueuer_gone"):
            pass


async def test_a_contender_with_another_clock_is_refused() -> None:
    with pytest.raises(ContenderFailed, match="another monotonic clock"):
        async with fake("from outbox_bench.peers.talk import say; say(ready=5); input()"):
            pass


async def test_a_cancelled_benchmark_leaves_no_process() -> None:
    pids = []

    async def benchmark(*, task_status: TaskStatus[None]) -> None:
        async with fake() as contender:
            pids.append(contender.pid)
            task_status.started()
            await contender.do("wait")

    async with anyio.create_task_group() as tasks:
        await tasks.start(benchmark)
        assert psutil.pid_exists(*pids)
        tasks.cancel_scope.cancel()
    assert not psutil.pid_exists(*pids)


async def test_a_killed_benchmark_leaves_no_process() -> None:
    harness = f"""
import anyio, sys
from dataclasses import replace
from pathlib import Path
from outbox_bench.peers.process import contending

async def main():
    async with contending("fake", [sys.executable, "-c", {FAKE!r}], Path({str(ROOT)!r}), {{}}) as contender:
        print(contender.pid, flush=True)
        await contender.do("wait")

anyio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", harness], cwd=ROOT, stdout=subprocess.PIPE) as process:
        contender = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(contender.wait, 20)


async def test_ratios_are_to_the_best_peer_of_the_same_run() -> None:
    report = Measurements("peers", "")
    comparison = Comparison(RaceServers("", Cache(Path()), None, None), PeersOptions(), report)
    first, second = PEERS[:2]
    for ours, one, other in ((30.0, 10.0, 5.0), (30.0, 2.0, 20.0)):
        for entrant, value in ((OURS, ours), (first, one), (second, other)):
            comparison._keep("no-op throughput", entrant, "jobs/s", value)
            comparison._latency("pick-up", entrant, [value, value])
        comparison.relate()
    ratios = {figure.name: figure for figure in report.figures if "÷" in figure.name}
    assert ratios["no-op throughput ÷ best peer"].runs == [3.0, 1.5]
    assert ratios["pick-up p50 ÷ best peer"].runs == [6.0, 15.0]
    assert not ratios["no-op throughput ÷ best peer"].reached


async def test_failed_contender_is_noted_and_not_tried_again(postgres: PostgresServer) -> None:
    report = Measurements("peers", "")
    comparison = Comparison(RaceServers(postgres.dsn(), Cache(Path()), None, None), PeersOptions(), report)
    tried = []

    async def leg(entrant: Entrant, _trial: Trial) -> None:
        tried.append(entrant)
        raise ContenderFailed("it broke")

    async with comparison.ground.database(OURS):
        await comparison.attempt(leg, OURS)
        await comparison.attempt(leg, OURS)
    assert tried == [OURS]
    assert report.notes == ["temporal-outbox was given up: it broke"]


async def test_a_backlog_that_is_not_drained_in_time_is_rated_by_what_began() -> None:
    report = Measurements("peers", "")
    comparison = Comparison(RaceServers("", Cache(Path()), None, None), PeersOptions(jobs=100, drain_limit_s=7), report)

    class Slow:
        async def drain(self, jobs: int, limit_s: float) -> Drain:
            return Drain(12.5, complete=False)

    await comparison.drain(OURS, Slow())
    assert values(report) == {"no-op throughput, temporal-outbox": 12.5}
    assert report.notes == ["temporal-outbox did not drain 100 jobs in 7 s; rated by what it began"]


@pytest.mark.timeout(120)
async def test_without_the_peers_our_own_figures_remain_and_a_note_names_the_missing_ones(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    report = Measurements("peers", "")
    options = PeersOptions(jobs=200, drain_limit_s=20, pickups=3, starts=0, runs=1, cache=tmp_path)
    async with Lab(postgres.dsn()) as lab:
        await measure(lab, options, report, silent)
    assert set(values(report)) == {
        "no-op throughput, temporal-outbox",
        "pick-up p50, temporal-outbox",
        "pick-up p99, temporal-outbox",
    }
    (note,) = report.notes
    assert re.match("not run: Graphile Worker, pg-boss, PgQueuer, Procrastinate. They could not be installed: ", note)


@pytest.mark.slow("installs and measures other outboxes")
@pytest.mark.timeout(600)  # the first of them installs the peers
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
async def test_a_peer_is_measured_beside_us(peer: Entrant, cache: Cache, postgres: PostgresServer) -> None:
    report = Measurements("peers", "")
    async with Lab(postgres.dsn()) as lab:
        await measure(lab, replace(BRIEF, only=(peer.name,)), report, silent)
    assert report.notes == []
    found = values(report)
    for name in (OURS.name, peer.name):
        assert found[f"no-op throughput, {name}"] > 1
        assert 0 < found[f"pick-up p50, {name}"] <= found[f"pick-up p99, {name}"]
        assert len(report.samples[f"pick-up, {name}"]) == 3
    assert found["no-op throughput ÷ best peer"] > 0
    assert report.settings[peer.name][peer.name.lower().replace(" ", "-")]


@pytest.mark.slow("installs and measures other outboxes")
@pytest.mark.timeout(600)
async def test_workflow_starts_are_measured_beside_what_one_would_build_instead(
    cache: Cache, postgres: PostgresServer, temporal_server: SharedServer
) -> None:
    report = Measurements("peers", "")
    async with Lab(postgres.dsn(), temporal_server.address) as lab:
        await measure(lab, replace(BRIEF, only=("PgQueuer",), starts=5, jobs=1, pickups=2), report, silent)
    found = values(report)
    for name in (OURS.name, "PgQueuer"):
        assert found[f"start throughput, {name}"] > 0
        assert len(report.samples[f"event → start, {name}"]) == 2
    assert found["event → start p50 ÷ best peer"] > 0


@pytest.mark.parametrize("name", ["requirements.txt", "package-lock.json"])
def test_pins_name_no_host(name: str) -> None:
    pins = (HERE / name).read_text()
    assert "--hash" in pins or "integrity" in pins
    assert not re.search(r'"resolved"|https?://(?!.*(fund|sponsor|tidelift|paypal|opencollective))', pins)
