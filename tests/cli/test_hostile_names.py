"""Producers choose names, and servers choose errors: none of these controls the terminal that shows them."""

from __future__ import annotations

import io
import json
import re
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outbox.cli.console import Console
from outbox.model.json_output import json_output
from outbox.model.plain_text import PlainStream, plain
from tests.cli.test_cli import outbox
from tests.support.running import fetch

HOSTILE = "n\x1b]0;owned\x07\x1b[2J\x9b8m\u202egnp\r\x08!"
FORBIDDEN = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Everything that controls a terminal, but for rich's colours."""
MESSAGE = """
select outbox.enqueue($1, '{}', key => $1, tenant => $1, target => json_build_object(
    'operation', 'cancel_workflow', 'workflow_id', $1::text, 'namespace', $1::text, 'reason', $1::text))
"""
ERROR = """
update outbox.message set due_at = now() + interval '1 hour', attempts = 1,
    errors = jsonb_build_array(jsonb_build_object('at', now(), 'kind', $1::text, 'detail', $1::text, 'counted', true))
"""
WORKER = """
with seen as (
    insert into outbox.worker (name, version, state, detail)
    values ($1, $1, 'holding', jsonb_build_object('mode', $1::text, 'held', $1::text, 'reason', $1::text)) returning worker_id
)
insert into outbox.dead_letter
    (message_id, seq, created_at, available_at, claimed_at, died_at, worker_id, deliveries, attempts, priority, reason, topic, key,
     dedup_key, target, headers, payload, errors)
select $2, 1, now(), now(), now(), now(), worker_id, 1, 1, 0, 'rejected', $1, $1, $1,
       json_build_object('operation', 'start_workflow', 'workflow_id', $1::text, 'namespace', $1::text), '{}', to_json($1::text),
       jsonb_build_array(jsonb_build_object('at', now() - interval '9 days', 'kind', $1::text, 'detail', $1::text, 'counted', true))
from seen
"""
COMMANDS = [
    ("status",),
    ("doctor",),
    ("mode",),
    ("config",),
    ("dead", "list"),
    ("dead", "list", "--topic", HOSTILE),
    ("dead", "show", "ID"),
    ("dead", "requeue", "ID"),
    ("dead", "requeue", "--all", "--force"),
    ("cancel", "ID"),
    ("pause", "--topic", HOSTILE),
    ("resume", "--topic", HOSTILE),
    ("resume", "--topic", HOSTILE),
    ("limit", HOSTILE, "--off"),
    ("prune", "--dry-run"),
    ("reset",),
    ("routes", "check"),
    ("routes", "check", "--file", "faulty.toml"),
    ("routes", "check", "--topic", HOSTILE),
    ("enqueue", HOSTILE * 20, "{}"),
    ("status", "--json"),
    ("dead", "list", "--json"),
    ("health",),
    ("nonsense",),
]
SILENT = {"mode", "config", "cancel", "prune", "reset", "health", "nonsense", "enqueue"}
"""Commands that show none of these names here."""


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words).replace(HOSTILE, "…"))
async def test_no_screen_lets_a_name_control_the_terminal(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    topic = HOSTILE.encode("unicode_escape").decode().replace("\\x", "\\u00")
    route = f'[[route]]\ntopic = "{topic}"\noperation = "cancel_workflow"\nworkflow_id = "{topic}{{a}}"\n'
    Path("outbox.toml").write_text(route)
    Path("faulty.toml").write_text(f'[[route]]\ntopic = "{topic}"\noperation = "{topic}"\n"{topic}" = 1\n')
    dead = uuid4()
    for statement in ("select outbox.pause(topic => $1)", "select outbox.pause(key => $1)", MESSAGE, ERROR):
        await fetch(database, statement, HOSTILE)
    await fetch(database, "select outbox.limit_topic($1, 5, 1)", HOSTILE)
    await fetch(database, WORKER, HOSTILE, dead)
    arguments = [str(dead) if word == "ID" else word for word in words]
    done = await outbox(database, *arguments, FORCE_COLOR="1", COLUMNS="200", TERM="xterm")
    for text in (done.out, done.err):
        found = FORBIDDEN.search(text)
        assert found is None, text[max(0, found.start() - 80) : found.end() + 80]
    assert "Traceback" not in done.err
    assert "owned" in done.out + done.err or words[0] in SILENT


@pytest.mark.parametrize("indent", [False, True])
def test_json_shows_codes_and_means_the_same(indent: bool) -> None:
    value = {
        HOSTILE: [HOSTILE, "é\x7f\x85\u2028\U000e0041", orjson.Fragment('{"é":\t"\x9b"}')],
        "when": datetime(2026, 1, 2),
    }
    written = json_output(value, indent=indent)
    assert FORBIDDEN.search(written.decode().replace("\t", "")) is None
    assert "é" in written.decode()
    read = json.loads(written)
    assert read == {HOSTILE: [HOSTILE, value[HOSTILE][1], {"é": "\x9b"}], "when": "2026-01-02T00:00:00"}  # type: ignore[index]


def _table(text: str) -> Table:
    table = Table(text)
    table.add_row(Text(text))
    return table


@pytest.mark.parametrize("show", [Text, str, lambda text: Panel(Text(text)), _table])
def test_console_shows_control_codes_and_executes_none(show: object) -> None:
    file = io.StringIO()
    assert callable(show)
    Console(file=file, force_terminal=True, width=120, highlight=False).print(show(HOSTILE), style="red", markup=False)
    assert FORBIDDEN.search(file.getvalue()) is None
    assert r"\x1b]0;owned" in file.getvalue()
    assert "\x1b[" in file.getvalue(), "its own colours"


def test_stream_writes_what_can_be_seen() -> None:
    file = io.StringIO()
    stream = PlainStream(file)
    stream.write("é\n" + HOSTILE)
    stream.writelines(["a\n", HOSTILE])
    assert FORBIDDEN.search(file.getvalue()) is None
    assert file.getvalue().startswith("é\n")
    assert plain("plain – ünï\n") == "plain – ünï\n"
    Console(file=stream, force_terminal=True).print("x", style="red")  # type: ignore[arg-type]
    assert "\x1b[31mx" in file.getvalue()


def test_no_screen_goes_past_the_console() -> None:
    """A module that shows something takes `outbox.cli.console.Console`, never rich's own; and JSON is `json_output`'s."""
    root = Path(__file__).parents[2]
    sources = [path for folder in ("outbox", "workflows", "bench") for path in (root / folder).rglob("*.py")]
    assert sources
    past = [
        str(path.relative_to(root))
        for path in sources
        if re.search(
            r"stdout\.buffer\.write\((or)?json\.|from rich\.console import .*\bConsole\b|rich\.print|from rich import print",
            path.read_text(),
        )
    ]
    assert past == []
