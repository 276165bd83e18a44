"""The documents and the code name the same things."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
import typer

from outbox import cli, events
from outbox.config import Settings, environment_name
from outbox.connection.parameters import PARAMETERS, Parameter
from outbox.sqlfiles import migrations
from workflows import settings as adapter
from workflows.routes import Routes
from workflows.settings import TemporalSettings
from workflows.target import RetryPolicy, Target

ROOT = Path(__file__).parent.parent.parent
DOCS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
}
ALL_DOCS = "\n".join(DOCS.values())


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by the words that call it, those of groups too."""
    found = dict(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    for name, command in list(found.items()):
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()}
    return found


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(field: str) -> None:
    info = Settings.model_fields[field]
    row = next(
        line
        for line in DOCS["docs/configuration.md"].splitlines()
        if line.startswith(f"| `{environment_name(field)}` |")
    )
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


@pytest.mark.parametrize("field", {**Target.model_fields, **RetryPolicy.model_fields})
def test_every_field_of_a_route_is_documented(field: str) -> None:
    assert f"`{field.removesuffix('_s')}`" in DOCS["docs/routes.md"]


def test_the_example_of_routes_is_a_good_one(tmp_path: Path) -> None:
    [example, *_] = re.findall(r"```toml\n(.*?)```", DOCS["docs/routes.md"], re.DOTALL)
    (tmp_path / "outbox.toml").write_text(example, encoding="utf-8")
    assert Routes.load(tmp_path / "outbox.toml").all


def test_every_documented_setting_exists() -> None:
    known = {environment_name(field) for field in Settings.model_fields} | {"OUTBOX_DATABASE_URL", "OUTBOX_LOG_LEVEL"}
    named = set(re.findall(r"\bOUTBOX_[A-Z_]+[A-Z]\b", ALL_DOCS))
    known |= {adapter.environment_name(field) for field in TemporalSettings.model_fields}
    known |= {"OUTBOX_DATABASE_URL_FILE", "OUTBOX_LISTEN_URL_FILE"}
    assert named <= known
    assert {name for name in known if name.startswith("OUTBOX_")} <= named


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_documented_and_has_help(command: str) -> None:
    assert f"outbox {command}" in ALL_DOCS
    assert commands()[command].help


@pytest.mark.parametrize("event", typing.get_args(events.Event), ids=lambda event: event.__name__)
def test_every_event_is_explained_to_operators(event: type) -> None:
    assert f"`{event.__name__}`" in DOCS["docs/operations.md"]


def test_every_producer_function_and_argument_is_documented() -> None:
    sql = "".join(migration.text for migration in migrations())
    for match in re.finditer(r"create function outbox\.(\w+)\(([^$]*?)\) returns (?:uuid|setof uuid)", sql, re.DOTALL):
        name, arguments = match.groups()
        if name in ("new_message_id", "enqueue_many", "delivered_lately"):
            continue
        assert f"`{name}`" in ALL_DOCS or f"outbox.{name}" in DOCS["docs/producing.md"]
        for argument in re.findall(
            r"^\s*(\w+)\s+(?:text|json|jsonb|uuid|timestamptz|integer|interval|boolean)\b", arguments, re.MULTILINE
        ):
            assert f"`{argument}`" in DOCS["docs/producing.md"], f"{name}({argument})"


@pytest.mark.parametrize("name", DOCS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", DOCS[name]):
        assert ((ROOT / name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCS)
def test_every_file_named_in_the_documents_exists(name: str) -> None:
    for path in re.findall(r"`((?:outbox|workflows|sql|tests|bench|docs)/[\w/.]+)`", DOCS[name]):
        assert (ROOT / path).exists(), path
