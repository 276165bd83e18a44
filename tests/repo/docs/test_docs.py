"""The documents and the code name the same things."""

from __future__ import annotations

import functools
import itertools
import re
import typing
from pathlib import Path
from time import monotonic

import pytest
import typer
from prometheus_client.core import Metric
from pydantic import SecretStr

from outbox.cli import main as cli
from outbox.cli.help import PANELS
from outbox.config.settings import Settings, environment_name
from outbox.doctor import CHECKS
from outbox.model import events
from outbox.model.finding import Check
from outbox.observability.cached_answer import Answer
from outbox.observability.counters import EventCounters
from outbox.observability.metrics import FACTS, STATES, Metrics
from outbox.observability.pages import LIVE, METRICS, READY, STATUS
from outbox.observability.state import WorkerState
from outbox.postgres.address.parameters import PARAMETERS, Parameter
from outbox.store.sql import migrations
from outbox_temporal import doctor as examination
from outbox_temporal.audit.command import audit
from outbox_temporal.audit.findings import Kind
from outbox_temporal.sink import settings as adapter
from outbox_temporal.sink.settings import TemporalSettings
from outbox_temporal.target.check import means_something
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import NEEDS, RetryPolicy, Target
from outbox_workflows.worker import settings as process
from outbox_workflows.worker.settings import WorkflowSettings

ROOT = Path(__file__).parents[3]
DOCS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
}
ALL_DOCS = "\n".join(DOCS.values())
PAGES = {**DOCS, **{name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}}


def _command(function: typing.Any) -> typer.core.TyperCommand:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)  # type: ignore[return-value]


AUDIT = _command(audit)


@functools.cache
def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by the words that call it, those of groups too; not former names, which are hidden."""
    cli.add_commands()
    found = dict(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    for name, command in list(found.items()):
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()}
    return {name: command for name, command in found.items() if not command.hidden}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(field: str) -> None:
    info = Settings.model_fields[field]
    begin = f"| `{environment_name(field)}` |"
    rows = [line for line in DOCS["docs/configuration.md"].splitlines() if line.startswith(begin)]
    assert rows, f"docs/configuration.md has no row that begins with {begin}"
    [row] = rows
    assert info.description
    assert info.description in row
    if info.default_factory is None and not info.is_required():
        shown = str(info.default).lower() if isinstance(info.default, bool) else info.default
        if shown is None:
            assert "| – |" in row
            return
        assert f"`{shown:g}`" in row if isinstance(shown, float) else f"`{shown}`" in row


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda parameter: parameter.name)
def test_every_parameter_of_the_connection_is_documented_with_its_variables(parameter: Parameter) -> None:
    [row] = [
        line
        for line in DOCS["docs/configuration.md"].splitlines()
        if line.startswith("| ") and f"`{parameter.name}`" in line.split("|")[1]
    ]
    names = filter(None, (parameter.libpq, *parameter.single))
    assert [name for name in names if f"`{name}`" not in row] == []


@pytest.mark.parametrize("field", TemporalSettings.model_fields)
def test_every_setting_of_the_adapter_is_documented_with_its_default(field: str) -> None:
    info = TemporalSettings.model_fields[field]
    shown = "–" if info.default is None else f"`{info.default}`"
    row = f"| `{adapter.environment_name(field)}` | {shown} | {info.description} |"
    assert row in DOCS["docs/configuration.md"].splitlines()


@pytest.mark.parametrize("field", WorkflowSettings.model_fields)
def test_every_setting_of_the_workflow_worker_is_documented_with_its_default(field: str) -> None:
    info = WorkflowSettings.model_fields[field]
    default = info.default.get_secret_value() if isinstance(info.default, SecretStr) else info.default
    shown = "–" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    row = f"| `{process.environment_name(field)}` | {shown} | {info.description} |"
    assert row in DOCS["docs/configuration.md"].splitlines()


@pytest.mark.parametrize("field", {**Target.model_fields, **RetryPolicy.model_fields})
def test_every_field_of_a_route_is_documented(field: str) -> None:
    assert f"`{field.removesuffix('_s')}`" in DOCS["docs/routes.md"]


def table_of(document: str, begin: str) -> list[list[str]]:
    """The cells of the rows of the table with this beginning of its head."""
    lines = DOCS[document].partition(begin)[2].splitlines()[2:]
    return [re.split(r" \| ?", line[2:-2]) for line in itertools.takewhile(lambda line: line.startswith("| "), lines)]


JSON_TYPES = {str: "text", float: "number", int: "integer", list: "array", dict: "object", RetryPolicy: "object"}


def json_type(annotation: typing.Any) -> str:
    """What a field's value is in JSON."""
    [plain, *_] = [part for part in typing.get_args(annotation) if part is not type(None)] or [annotation]
    plain = annotation if typing.get_origin(annotation) in (list, dict, typing.Literal) else plain
    origin = typing.get_origin(plain)
    if origin is typing.Annotated:
        return json_type(typing.get_args(plain)[0])
    return "text" if origin is typing.Literal else JSON_TYPES[origin or plain]


def words_of(annotation: typing.Any) -> list[str]:
    """The words among which a field has a choice."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [word for part in typing.get_args(annotation) for word in words_of(part)]


def test_the_table_of_a_targets_fields_is_that_of_the_code() -> None:
    rows = {row[0].strip("`"): row for row in table_of("docs/producing.md", "| field | JSON | of |")}
    assert list(rows) == list(Target.model_fields)
    short = {operation: operation.removesuffix("_workflow") for operation in NEEDS}
    always = {"operation", "workflow_id", "namespace"}
    for name, field in Target.model_fields.items():
        _, kind, of, meaning = rows[name]
        assert kind == json_type(field.annotation), name
        meant = [short[op] for op in NEEDS if name in always or means_something(name, op)]
        assert of == ("all" if len(meant) == len(short) else ", ".join(meant)), name
        needed = field.is_required() or any(name in needs for needs in NEEDS.values())
        assert ("**required**" in meaning) is needed, name
        words = words_of(field.annotation)
        assert [word for word in words if f"`{word}`" not in meaning] == [], name
        if words and isinstance(field.default, str):
            assert f"`{field.default}` (default)" in meaning, name
    rows = {row[0].strip("`"): row for row in table_of("docs/producing.md", "| field of `retry_policy` | JSON |")}
    fields = RetryPolicy.model_fields
    assert [(name, row[1]) for name, row in rows.items()] == [(n, json_type(f.annotation)) for n, f in fields.items()]


def test_every_option_of_enqueue_is_documented() -> None:
    options = {option for each in commands()["enqueue"].params for option in each.opts if option.startswith("--")}
    reported = DOCS["docs/producing.md"].partition("### From the shell")[2].partition("\n## ")[0]
    assert [option for option in sorted(options - {"--help"}) if f"`{option}`" not in reported] == []


def test_the_example_of_routes_is_a_good_one(tmp_path: Path) -> None:
    [example, *_] = re.findall(r"```toml\n(.*?)```", DOCS["docs/routes.md"], re.DOTALL)
    (tmp_path / "outbox.toml").write_text(example, encoding="utf-8")
    assert Routes.load(tmp_path / "outbox.toml").all


def test_every_documented_setting_exists() -> None:
    known = {environment_name(field) for field in Settings.model_fields} | {"OUTBOX_DATABASE_URL", "OUTBOX_LOG_LEVEL"}
    named = set(re.findall(r"\bOUTBOX_[A-Z_]+[A-Z]\b", ALL_DOCS))
    known |= {adapter.environment_name(field) for field in TemporalSettings.model_fields}
    known |= {process.environment_name(field) for field in WorkflowSettings.model_fields}
    known |= {"OUTBOX_DATABASE_URL_FILE", "OUTBOX_LISTEN_URL_FILE", "OUTBOX_WORKFLOWS_MAIL_FILE"}
    assert named <= known
    assert {name for name in known if name.startswith("OUTBOX_")} <= named


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_documented_and_has_help(command: str) -> None:
    assert f"outbox {command}" in ALL_DOCS, f"no page mentions `outbox {command}`"
    assert commands()[command].help


def test_every_command_has_its_panel_in_the_help() -> None:
    named = [name for names in PANELS.values() for name in names]
    assert sorted(named) == sorted({word.partition(" ")[0] for word in commands()})


@pytest.mark.parametrize("event", typing.get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_explained_to_operators(event: type) -> None:
    assert f"`{event.__name__}`" in DOCS["docs/operations.md"]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_finding_is_explained_to_operators(kind: Kind) -> None:
    assert f"`{kind}`" in DOCS["docs/audit.md"]


def rows_of_checks() -> list[tuple[str, str]]:
    """Each check that operators read of, and what it may be."""
    return re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| [^|]+ \| [^|]+ \|$", DOCS["docs/doctor.md"], re.MULTILINE)


@pytest.mark.parametrize("check", (*CHECKS, *examination.CHECKS), ids=lambda check: check.what)
def test_every_check_of_the_doctor_is_documented_with_its_grades(check: Check) -> None:
    assert dict(rows_of_checks())[check.what] == ", ".join(check.grades)


def test_every_documented_check_exists_and_in_the_order_in_which_it_is_made() -> None:
    assert [what for what, _ in rows_of_checks()] == [check.what for check in (*CHECKS, *examination.CHECKS)]


@pytest.mark.parametrize("option", [option for each in AUDIT.params for option in each.opts if option != "--help"])
def test_every_option_of_the_audit_is_documented(option: str) -> None:
    assert option in DOCS["docs/audit.md"]


def test_every_producer_function_and_argument_is_documented() -> None:
    sql = "".join(migration.text for migration in migrations())
    for match in re.finditer(r"create function outbox\.(\w+)\(([^$;]*?)\) returns (?:uuid|setof uuid)", sql, re.DOTALL):
        name, arguments = match.groups()
        if name in ("new_message_id", "enqueue_many", "delivered_lately", "add_once"):
            continue
        assert f"`{name}`" in ALL_DOCS or f"outbox.{name}" in DOCS["docs/producing.md"]
        for argument in re.findall(
            r"^\s*(\w+)\s+(?:text|json|jsonb|uuid|timestamptz|integer|interval|boolean)\b", arguments, re.MULTILINE
        ):
            assert f"`{argument}`" in DOCS["docs/producing.md"], f"{name}({argument})"


def test_the_architecture_names_every_migration_and_every_folder_of_statements() -> None:
    text = DOCS["docs/architecture.md"].partition("## The SQL")[2]
    named = set(re.findall(r"^\| `(\d{4}_\w+)` \|", text, re.MULTILINE))
    assert named == {f"{m.version:04d}_{m.name}" for m in migrations()}
    folders = {path.name for path in (ROOT / "sql" / "queries").iterdir()}
    assert {folder for folder in folders if f"`{folder}`" not in text} == set()


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[name]):
        assert ((ROOT / name).parent / target).exists(), target


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_anchor_is_a_heading(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", PAGES[name]):
        page = (ROOT / name).parent / target if target else ROOT / name
        assert anchor in anchors(page.read_text(encoding="utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("name", PAGES)
def test_every_file_named_in_the_documents_exists(name: str) -> None:
    for path in re.findall(r"`((?:outbox|workflows|sql|tests|bench|docs|deploy)/[\w/.]+)`", PAGES[name]):
        assert (ROOT / path).exists(), path


def metrics() -> dict[str, Metric]:
    """Every metric by the name that stands in a scrape, histograms without their suffixes."""
    facts = Answer(monotonic(), {**dict.fromkeys(FACTS, 0), "states": dict.fromkeys(STATES, 0)})
    state = WorkerState(worker="w", schema="outbox", sink_timeout_s=1.0)
    counts = EventCounters()
    counts.sources = {"listen": True}
    found = Metrics(counts, state, lambda: facts, slots=64).collect()
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name: metric for metric in found}


@pytest.mark.parametrize("name", metrics())
def test_every_metric_is_documented_as_the_code_has_it(name: str) -> None:
    metric = metrics()[name]
    labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
    shown = ", ".join(f"`{label}`" for label in labels)
    row = f"| `{name}` | {metric.type} | {shown} | {metric.documentation} |"
    assert row in DOCS["docs/operations.md"].splitlines()


def test_every_documented_metric_exists() -> None:
    named = set(re.findall(r"`(outbox_[a-z_]+)[`{]", DOCS["docs/operations.md"]))
    assert named == set(metrics())


@pytest.mark.parametrize("name", PAGES)
def test_text_is_wrapped_at_a_hundred_characters(name: str) -> None:
    text = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", PAGES[name], flags=re.DOTALL | re.MULTILINE)
    free = ("|", "#", "![", "[![", "<", "    ")
    assert [line for line in text.splitlines() if len(line) > 100 and not line.startswith(free)] == []


@pytest.mark.parametrize("name", metrics())
def test_a_metric_is_named_as_prometheus_asks(name: str) -> None:
    metric = metrics()[name]
    assert re.fullmatch(r"outbox_[a-z]+(_[a-z]+)*", name)
    assert metric.documentation.endswith(".")
    for sample in metric.samples:
        assert len(sample.labels) <= 2


def test_every_storage_setting_of_the_hot_table_is_explained_with_its_value() -> None:
    vacuum = DOCS["docs/retention.md"].partition("## Vacuum")[2]
    [settings] = re.findall(r"^with \(\n(.*?)\n\);", migrations()[0].text, re.MULTILINE | re.DOTALL)
    for name, value in re.findall(r"(\w+) = ([\d.]+)", settings):
        assert f"`{name}` {value}" in vacuum


@pytest.mark.parametrize("path", [LIVE, READY, STATUS, METRICS])
def test_every_page_is_documented(path: str) -> None:
    assert f"`{path}`" in DOCS["docs/operations.md"]
