"""SQL is text in files: all there, in order, and only a validated name gets into it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from outbox.model.errors import ConfigurationError
from outbox.store import sql as sqlfiles

ROOT = Path(__file__).parents[2]
SOURCE = "".join(
    path.read_text(encoding="utf-8") for top in ("outbox", "workflows") for path in (ROOT / top).rglob("*.py")
)
FILES = sorted((ROOT / "sql" / "queries").rglob("*.sql"))
QUERIES = [f"{path.parent.name}/{path.stem}" for path in FILES]


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [migration.version for migration in sqlfiles.migrations()] == list(range(1, len(sqlfiles.migrations()) + 1))


def test_every_file_among_the_migrations_is_one() -> None:
    """A file with a misspelt name would be left out in silence."""
    files = sorted(path.name for path in (ROOT / "sql" / "migrations").iterdir())
    assert files == [f"{migration.version:04d}_{migration.name}.sql" for migration in sqlfiles.migrations()]


def test_a_migration_creates_what_none_before_it_has_created() -> None:
    """So each function and table reads from top to bottom in one place. A later change says `or replace`, or `alter`."""
    made = re.findall(r"^create (\w+ outbox\.\w+)", "".join(m.text for m in sqlfiles.migrations()), re.MULTILINE)
    assert len(made) > 100
    assert [what for what in set(made) if made.count(what) > 1] == []


def test_checksum_is_of_the_file_as_shipped() -> None:
    for migration in sqlfiles.migrations():
        text = (ROOT / "sql" / "migrations" / f"{migration.version:04d}_{migration.name}.sql").read_bytes()
        assert migration.checksum == hashlib.sha256(text).hexdigest()


def test_every_statement_lies_in_the_folder_of_its_owner() -> None:
    assert [path for path in FILES if path.parents[1].name != "queries"] == []


def test_the_code_names_every_statement_and_no_other() -> None:
    folders = "|".join({path.parent.name for path in FILES})
    assert set(re.findall(rf'"((?:{folders})/\w+)"', SOURCE)) == set(QUERIES)


@pytest.mark.parametrize("name", QUERIES)
def test_no_statement_file_only_calls_a_function(name: str) -> None:
    """The code names such a function itself, by `call`."""
    text = re.sub(r"^--.*\n", "", sqlfiles.query(name), flags=re.MULTILINE)
    assert not re.fullmatch(r"select (\* from )?outbox\.\w+\([$\d, ]*\)\s*", text)


def test_every_function_that_the_code_calls_is_made_by_a_migration() -> None:
    called = set(re.findall(r'\bcall\("(\w+)"', SOURCE.replace("_call(", "call(")))
    made = set(re.findall(r"create function outbox\.(\w+)\(", "".join(m.text for m in sqlfiles.migrations())))
    assert called >= {"pause", "look_home", "enqueue_many"}
    assert called <= made


def test_call_passes_its_arguments_in_order_to_a_function_of_the_schema() -> None:
    assert sqlfiles.call("pause", 2) == "select * from outbox.pause($1, $2)"
    assert sqlfiles.call("look_home", schema="team") == "select * from team.look_home()"


@pytest.mark.parametrize("name", QUERIES)
def test_statement_file_says_what_it_does_and_explains_each_parameter(name: str) -> None:
    text = sqlfiles.query(name)
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("--"))
    used = set(re.findall(r"\$\d+", text.replace(comment, "")))
    assert comment
    assert used == set(re.findall(r"\$\d+", comment))


def test_default_schema_leaves_the_text_as_it_is() -> None:
    text = (ROOT / "sql" / "queries" / "claim" / "plain.sql").read_text(encoding="utf-8")
    assert sqlfiles.query("claim/plain") == text


def test_another_schema_replaces_the_qualifier_and_nothing_else() -> None:
    text = "select outbox.f(), 'outbox.g', outbox_x.h, my_outbox.i from outbox -- the outbox."
    assert (
        sqlfiles.in_schema(text, "team")
        == "select team.f(), 'team.g', outbox_x.h, my_outbox.i from outbox -- the team."
    )


@pytest.mark.parametrize("name", QUERIES)
def test_no_statement_keeps_the_default_schema(name: str) -> None:
    assert "outbox." not in sqlfiles.query(name, "team_events")


@pytest.mark.parametrize("schema", ["outbox", "a", "_x", "team_2", "x" * 40, "pgx"])
def test_plain_names_are_schemas(schema: str) -> None:
    assert sqlfiles.validated_schema(schema) == schema


@pytest.mark.parametrize(
    "schema",
    ["", "1a", "A", "a-b", "a b", "a.b", "a;drop table x", 'a"', "a'", "é", "x" * 41, "pg_x", "a\n", "a\x00", "аdmin"],
)
def test_everything_else_is_refused_with_the_setting(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="OUTBOX_SCHEMA"):
        sqlfiles.validated_schema(schema)
    with pytest.raises(ConfigurationError):
        sqlfiles.in_schema("select outbox.f()", schema)
