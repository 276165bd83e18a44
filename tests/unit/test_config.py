"""Settings: every fault is found before anything starts, and named as its reader wrote it."""

from __future__ import annotations

import logging
import os
import re
import traceback
from pathlib import Path

import pytest

from outbox.config import settings as config
from outbox.config.report import survey
from outbox.model.errors import ConfigurationError
from outbox.postgres.address.address import NOTHING_SET
from outbox.relay.settings import RelaySettings

SECRET = "hunter2"
URL = f"postgresql://u:{SECRET}@db:5432/x"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing of the environment in which the tests happen to run, and the one setting that must be there."""
    for name in [config.environment_name(field) for field in config.Settings.model_fields]:
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.startswith(("OUTBOX_", "DATABASE_", "DB_", "PG", "ALGA_", "SUPABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", URL)
    return monkeypatch


def faults(**overrides: object) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        config.load(**overrides)
    assert raised.value.exit_code == 2
    return raised.value.faults


def test_the_database_is_all_that_must_be_set() -> None:
    settings = config.load()
    assert str(settings.dsn) == "PostgreSQL at db:5432"
    assert settings.model_dump(include=set(RelaySettings.model_fields)) == RelaySettings().model_dump()
    assert settings.schema_name == "outbox"


def test_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert faults() == (NOTHING_SET,)


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and manifests write `NAME=` for what is not set."""
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("OUTBOX_LEASE_S", "")
    assert faults() == (NOTHING_SET,)


def test_prefixed_names_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE_URL", "postgresql://u@other")
    monkeypatch.setenv("LOG_LEVEL", "error")
    monkeypatch.setenv("OUTBOX_LOG_LEVEL", "debug")
    settings = config.load()
    assert (str(settings.dsn), settings.log_level) == ("PostgreSQL at other:5432", "DEBUG")


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "OUTBOX_SCHEMA": "No-Such",
        "OUTBOX_MODE": "telepathy",
        "OUTBOX_CONCURRENCY": "0",
        "OUTBOX_PREFETCH": "-1",
        "OUTBOX_BATCH": "many",
        "OUTBOX_LEASE_S": "0",
        "OUTBOX_DELIVER_TIMEOUT_S": "86401",
        "OUTBOX_MAX_ATTEMPTS": "1.5",
        "OUTBOX_HISTORY": "perhaps",
        "OUTBOX_HISTORY_DAYS": "0",
        "LOG_LEVEL": "loud",
        "OUTBOX_LOG_FORMAT": "xml",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("OUTBOX_MAX_DELIVERIES", "2")  # each right by itself, and not together
    monkeypatch.setenv("OUTBOX_LISTEN_URL", "http://nowhere")
    monkeypatch.setenv("SUPABASE_URL", "https://x.supabase.co")
    found = faults()
    others = [NOTHING_SET, "OUTBOX_LISTEN_URL cannot be used", "OUTBOX_MAX_DELIVERIES (2)", "SUPABASE_SERVICE_ROLE_KEY"]
    assert [other for other in others if not any(line.startswith(other) for line in found)] == []
    assert len(found) == len(wrong) + len(others)
    for name, value in wrong.items():
        [line] = [line for line in found if re.search(rf"\b{name}\b", line)]
        assert "\n" not in line
        assert value.upper() in line.upper()


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("OUTBOX_CONCURRENCY", "0", "OUTBOX_CONCURRENCY is '0': input should be greater than or equal to 1"),
        ("OUTBOX_LEASE_S", "soon", "OUTBOX_LEASE_S is 'soon': input should be a valid number"),
        ("OUTBOX_LEASE_S", "nan", "OUTBOX_LEASE_S is 'nan'"),
        ("OUTBOX_LEASE_S", "inf", "OUTBOX_LEASE_S is 'inf'"),
        ("OUTBOX_MODE", "x", "OUTBOX_MODE is 'x': input should be 'auto', 'listen', 'realtime' or 'poll'"),
        ("LOG_LEVEL", "x", "LOG_LEVEL is 'X': input should be 'TRACE', 'DEBUG'"),
        ("OUTBOX_LOG_LEVEL", "x", "OUTBOX_LOG_LEVEL is 'X': input should be 'TRACE', 'DEBUG'"),
        ("OUTBOX_SCHEMA", "1st", "schema '1st' is not usable"),
        ("OUTBOX_SCHEMA", "pg_outbox", "schema 'pg_outbox' is not usable"),
    ],
)
def test_a_fault_is_one_line_with_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    [found] = faults()
    assert found.startswith(line)
    assert name in found


@pytest.mark.parametrize(
    ("lease_s", "timeout_s", "good"), [(14, 10, True), (13.9, 10, False), (10, 10, False), (5, 1, True)]
)
def test_lease_must_outlast_a_delivery_and_its_settling(
    monkeypatch: pytest.MonkeyPatch, lease_s: float, timeout_s: float, good: bool
) -> None:
    monkeypatch.setenv("OUTBOX_LEASE_S", str(lease_s))
    monkeypatch.setenv("OUTBOX_DELIVER_TIMEOUT_S", str(timeout_s))
    if good:
        assert config.load().lease_s == lease_s
    else:
        [line] = faults()
        assert "OUTBOX_LEASE_S" in line
        assert "OUTBOX_DELIVER_TIMEOUT_S" in line
        assert "at least 14" in line


def test_quarantine_needs_a_claim_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_MAX_DELIVERIES", "2")
    [line] = faults()
    assert "OUTBOX_MAX_DELIVERIES (2) must be greater than OUTBOX_SUSPECT_AFTER (2)" in line


def test_the_first_pause_is_not_longer_than_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RETRY_BASE_S", "500")
    [line] = faults()
    assert "OUTBOX_RETRY_BASE_S (500), the first pause, must not be longer than OUTBOX_RETRY_CAP_S (300)" in line


def test_flags_go_before_the_environment_and_absent_flags_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_CONCURRENCY", "5")
    monkeypatch.setenv("OUTBOX_MODE", "poll")
    settings = config.load(mode="listen", concurrency=None, sink=None)
    assert (settings.mode, settings.concurrency) == ("listen", 5)


def test_wrong_flag_is_named_by_its_setting() -> None:
    assert faults(concurrency=0)[0].startswith("OUTBOX_CONCURRENCY is 0:")


def test_secrets_do_not_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load()
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())
    assert SECRET not in settings.model_dump_json()


def test_secrets_do_not_appear_in_the_traceback_of_a_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OUTBOX_LEASE_S", "1")  # a fault of the settings together: its input is all of them
    with pytest.raises(ConfigurationError) as raised:
        config.load()
    logging.getLogger().error("", exc_info=raised.value)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert SECRET not in caplog.text


def test_unknown_settings_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_TEMPORAL_TASK_QUEUE", "orders")
    config.load()


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.load().batch = 1  # type: ignore[misc]


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in config.Settings.model_fields.items() if not field.description] == []


# The sink


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("nonsense", "write it as module:attribute"),
        (":x", "write it as module:attribute"),
        ("outbox.model.sink:", "write it as module:attribute"),
        ("no.such.module:sink", "No module named 'no'"),
        ("outbox.model.sink:no_such", "has no attribute 'no_such'"),
        ("outbox.cli.main:app.name", "has no attribute"),
        ("outbox.postgres.address:CONNECT_TIMEOUT_S", "CONNECT_TIMEOUT_S cannot be called"),
    ],
)
def test_sink_that_cannot_be_had_is_named_with_the_cause(reference: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        config.load_sink(reference)
    [line] = raised.value.faults
    assert line.startswith(f"OUTBOX_SINK is {reference!r}: ")
    assert fault in line


def test_sink_is_found_by_reference() -> None:
    from tests.support import null_sink

    assert config.load_sink("tests.support.sinks:null_sink") is null_sink


def test_realtime_without_its_extra_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://x.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", SECRET)
    monkeypatch.setattr(config, "find_spec", lambda _: None)
    assert faults() == ("Supabase Realtime needs an extra: pip install 'temporal-outbox[realtime]'",)


def test_keys_of_supabase_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://x.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", SECRET)
    monkeypatch.setenv("OUTBOX_LISTEN_URL", URL)
    settings = config.load()
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.realtime())
    assert settings.listen_dsn is not settings.dsn


def test_key_of_supabase_is_read_again_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first\n")
    monkeypatch.setenv("SUPABASE_URL", "https://x.supabase.co")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY_FILE", str(file))
    configured = config.load().realtime()
    assert configured
    assert configured[0].current_key() == "first"
    file.write_text("second")
    assert configured[0].current_key() == "second"
    file.unlink()
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY_FILE"):
        configured[0].current_key()


def test_the_old_name_of_the_sink_still_works_and_the_new_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/app")
    monkeypatch.setenv("OUTBOX_SINK", "workflows.sink:temporal_sink")
    found = survey()
    assert found.faults == ()
    assert found.sink is config.load_sink("outbox_temporal.sink:temporal_sink")
    assert found.reading.doubts == (
        "OUTBOX_SINK is 'workflows.sink:temporal_sink', an old name that still works: "
        "write outbox_temporal.sink:temporal_sink",
    )
