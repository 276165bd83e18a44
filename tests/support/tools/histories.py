"""Records the golden histories of a workflow family: `python -m tests.support.tools.histories <family> [branch …]`.

It plays each of `tests/workflows/<family>/scenarios.py` on real servers and writes `histories/<branch>.json` there; of a
workflow that continued as new `<branch>-2.json` and so on too. A history that is there stays, because what it holds is
how workflows in production have begun; `--again` records it again, which is right only before a release.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import orjson
from temporalio.client import Client, WorkflowHistory

from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer, running
from outbox_temporal.servers.temporal import TemporalServer
from outbox_workflows.shared.migrations import APPLICATION
from tests.support.stage import Family, Scenarios, stage
from tests.support.time_skipping import SERVER_CONFIG

TESTS = Path(__file__).parents[2] / "workflows"


async def record(family: str, branches: Sequence[str], *, again: bool) -> None:
    """Record what is missing, or every one of `branches`."""
    scenes = import_module(f"tests.workflows.{family}.scenarios")
    cast: Family = scenes.FAMILY
    scenarios: Scenarios = scenes.SCENARIOS
    if unknown := set(branches) - scenarios.keys():
        raise SystemExit(f"no such branch: {', '.join(sorted(unknown))}; there are {', '.join(scenarios)}")
    config = SERVER_CONFIG | getattr(scenes, "SERVER_CONFIG", {})
    temporal = partial(TemporalServer.start, in_memory=True, ui=False, dynamic_config=config)
    async with running(partial(PostgresServer.start, fsync=False)) as postgres, running(temporal) as server:
        await migrate(postgres.dsn())
        await migrate(postgres.dsn(), lineage=APPLICATION)
        client = await Client.connect(server.address, identity="client")
        for branch in branches or scenarios:
            path = TESTS / family / "histories" / f"{branch}.json"
            if path.exists() and not again:
                sys.stdout.write(f"{path.relative_to(TESTS)} is there\n")
                continue
            with TemporaryDirectory() as mails:
                async with stage(cast, postgres.dsn(), client, Path(mails) / "mail") as played:
                    workflow_id = await scenarios[branch](played)
            for run, history in enumerate(await chain(client, workflow_id), 1):
                write(path if run == 1 else path.with_stem(f"{branch}-{run}"), history)


async def chain(client: Client, workflow_id: str) -> list[WorkflowHistory]:
    """The histories of all runs of a workflow, the first run's first."""
    histories: list[WorkflowHistory] = []
    run_id: str | None = (await client.get_workflow_handle(workflow_id).describe()).run_id
    while run_id:
        histories.insert(0, await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history())
        started = histories[0].events[0].workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
    return histories


def write(path: Path, history: WorkflowHistory) -> None:
    """Write one history, with line breaks for those who compare."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(orjson.dumps(_without_traces(history.to_json_dict()), option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.write(f"wrote {path.relative_to(TESTS)}: {len(history.events)} events\n")


def _without_traces(value: Any) -> Any:
    """The same without stack traces, which show the recording machine's folders and decide nothing."""
    if isinstance(value, dict):
        return {name: _without_traces(inner) for name, inner in value.items() if name != "stackTrace"}
    return [_without_traces(inner) for inner in value] if isinstance(value, list) else value


def main() -> None:
    """Parse the command line, and record."""
    parser = argparse.ArgumentParser(description="Record a workflow family's golden histories.")
    parser.add_argument("family", help="the folder in tests/ that has scenarios.py")
    parser.add_argument("branch", nargs="*", help="only these; all without")
    parser.add_argument("--again", action="store_true", help="record again what is there")
    arguments = parser.parse_args()
    anyio.run(partial(record, arguments.family, arguments.branch, again=arguments.again))


if __name__ == "__main__":
    main()
