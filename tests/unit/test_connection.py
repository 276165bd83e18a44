"""Who says where PostgreSQL is: one order of precedence, conflicts named, and no secret in anything that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outbox.config import settings as config
from outbox.model.errors import ConfigurationError
from outbox.postgres.address import ConnectionParameters, Environment, at, database, listening
from outbox.postgres.address.address import NOTHING_SET, retired_lines, unknown_parameters
from outbox.postgres.address.environment import Given
from outbox.postgres.address.url import MASK, masked

CANARY = "hunter2"
LAPTOP = {"DATABASE_URL": "postgresql://app@db/shop"}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home with nothing in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def resolved(variables: dict[str, str]) -> ConnectionParameters:
    return database(Environment(variables)).resolve()


def heard(variables: dict[str, str]) -> ConnectionParameters:
    environment = Environment(variables)
    address = listening(environment, database(environment))
    assert address
    return address.resolve()


def faults(variables: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        resolved(variables)
    assert not any(CANARY in fault or "\n" in fault for fault in raised.value.faults)
    return raised.value.faults


def seen(server: ConnectionParameters) -> dict[str, Any]:
    """What a reader of `outbox config` sees, as value and origin."""
    return {given.name: (given.value, given.origin) for given in server.shown()}


# Precedence

SERVICE = """
[shop]
host = of-service
port = 4
dbname = of_service
user = of_service
sslmode = require
"""
SOURCES: list[tuple[str, dict[str, str]]] = [
    ("OUTBOX_DATABASE_URL", {"OUTBOX_DATABASE_URL": "postgresql://of_own@of-own:1/of_own?sslmode=disable"}),
    ("DATABASE_URL", {"DATABASE_URL": "postgresql://of_url@of-url:2/of_url?sslmode=prefer"}),
    (
        "DB_HOST",
        {"DB_HOST": "of-db", "DB_PORT": "3", "DB_NAME": "of_db", "DB_USER": "of_db", "DB_SSLMODE": "verify-full"},
    ),
    ("service", {"PGSERVICE": "shop"}),
    (
        "PGHOST",
        {"PGHOST": "of-pg", "PGPORT": "5", "PGDATABASE": "of_pg", "PGUSER": "of_pg", "PGSSLMODE": "allow"},
    ),
]
ORDER = ["OUTBOX_DATABASE_URL", "DATABASE_URL", "service", "PGHOST"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUTBOX_LEES_S", "OUTBOX_LEASE_S"),
        ("OUTBOX_CONCURENCY", "OUTBOX_CONCURRENCY"),
        ("DB_HOSTT", "DB_HOST"),
        ("DB_PASSWORT_FILE", "DB_PASSWORD_FILE"),
        *(
            (name, None)
            for name in ("OUTBOX_LEASE_S", "DB_PASSWORD_FILE", "DB_SSL", "DB_HOSTNAME", "OUTBOX_DATABASE_URL")
        ),
        *((name, None) for name in ("OUTBOX_TEMPORAL_TASK_QUEUE", "OUTBOX_WORKFLOWS_DRAIN_TIMEOUT_S", "DB_POOL_SIZE")),
    ],
)
def test_a_variable_that_is_nearly_ours_is_reported(
    name: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@127.0.0.1/app")
    monkeypatch.setenv(name, "5")
    reported = [doubt for doubt in config.read().doubts if "is no setting" in doubt]
    assert reported == ([] if meant is None else [f"{name} is no setting, and is passed over: is {meant} meant?"])


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_sources_count_in_the_documented_order(first: int, tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(SERVICE)
    variables = {name: value for source, given in SOURCES if source in ORDER[first:] for name, value in given.items()}
    winner = {"OUTBOX_DATABASE_URL": "own", "DATABASE_URL": "url", "PGHOST": "pg"}.get(ORDER[first], ORDER[first])
    server = resolved(variables)
    assert (server.hosts[0].name, server.database, server.user) == (f"of-{winner}", f"of_{winner}", f"of_{winner}")
    origins = {origin for name, (_, origin) in seen(server).items() if name != "target_session_attrs"}
    prefix = {"service": "service shop in ", "PGHOST": "environment variable PG"}.get(ORDER[first])
    assert all(
        origin.startswith(prefix or f"environment variable {ORDER[first]}") for origin in origins - {"not given"}
    )


@pytest.mark.parametrize("source", ["service", "PGHOST"])
def test_single_variables_count_before(source: str, tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(SERVICE)
    server = resolved(dict(SOURCES)["DB_HOST"] | dict(SOURCES)[source])
    assert (str(server.hosts[0]), server.database, server.user) == ("of-db:3", "of_db", "of_db")
    assert seen(server)["sslmode"] == ("verify-full", "environment variable DB_SSLMODE")


def test_every_source_fills_what_the_others_leave_open(tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text("[s]\nport=6\n")
    server = resolved(
        {"DATABASE_URL": "postgresql://db?service=s", "DB_PASSWORD": CANARY, "PGUSER": "app", "PGDATABASE": "shop"}
    )
    assert seen(server) | {"sslmode": None, "target_session_attrs": None} == {
        "host": ("db", "environment variable DATABASE_URL"),
        "port": ("6", f"service s in {tmp_path}/.pg_service.conf"),
        "user": ("app", "environment variable PGUSER"),
        "dbname": ("shop", "environment variable PGDATABASE"),
        "password": (MASK, "environment variable DB_PASSWORD"),
        "sslmode": None,
        "target_session_attrs": None,
    }


def test_nothing_said_is_reported_with_what_may_be_said() -> None:
    assert faults({}) == faults({"PGUSER": "app", "DB_PASSWORD": CANARY}) == (NOTHING_SET,)


def test_own_address_leaves_the_applications_variables_alone() -> None:
    variables = {"OUTBOX_DATABASE_URL": "postgresql://o@mine/x", **LAPTOP, "DB_HOST": "mysql", "DB_PASSWORD": CANARY}
    server = resolved(variables)
    assert (server.hosts[0].name, server.password(server.hosts[0])) == ("mine", None)


# Conflicts


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"DB_HOST": "other"}, ("DATABASE_URL", "DB_HOST", "host")),
        ({"DB_USER": "other"}, ("DATABASE_URL", "DB_USER", "user")),
        ({"DB_NAME": "a", "DB_NAME_SERVER": "b"}, ("DB_NAME", "DB_NAME_SERVER")),
        ({"DB_PASSWORD": CANARY, "DB_PASS": "x"}, ("DB_PASSWORD", "DB_PASS")),
        ({"DB_SSL": "true", "DB_SSLMODE": "disable"}, ("DB_SSL", "DB_SSLMODE")),
        ({"DATABASE_URL": "postgresql://app@db/shop?sslmode=disable", "DB_SSL": "yes"}, ("DATABASE_URL", "DB_SSL")),
    ],
)
def test_what_disagrees_is_named(more: dict[str, str], names: tuple[str, ...]) -> None:
    [fault] = faults(LAPTOP | more)
    assert [name for name in names if name not in fault] == []
    assert "unset one of them" in fault


def test_what_agrees_is_no_conflict() -> None:
    same = {"DB_HOST": "db", "DB_NAME": "shop", "DB_USER": "app", "DB_SSL": "on", "DB_PASSWORD": "x", "DB_PASS": "x"}
    assert resolved(LAPTOP | same | {"DATABASE_URL": "postgresql://app@db/shop?sslmode=require"}).hosts[0].name == "db"


def test_variable_and_file_that_differ_are_named(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"postgresql://app:{CANARY}@db/shop")
    [fault] = faults(LAPTOP | {"DATABASE_URL_FILE": str(tmp_path / "url")})
    assert fault == "DATABASE_URL and DATABASE_URL_FILE are both set and differ: unset one of them"


def test_every_fault_is_reported_at_once() -> None:
    found = faults(
        {"DB_HOST": "a,b", "DB_PORT": "1,2,3", "DB_SSLMODE": "mostly", "PGSSLNEGOTIATION": "x"}
        | {
            "PGTARGETSESSIONATTRS": "standby",
            "PGHOSTADDR": "10.0.0.1",
            "PGREQUIREAUTH": "gss",
            "PGCONNECT_TIMEOUT": "-1",
        }
    )
    for name in (
        *("DB_PORT", "PGSSLNEGOTIATION", "PGTARGETSESSIONATTRS", "PGHOSTADDR", "PGREQUIREAUTH", "PGCONNECT_TIMEOUT"),
    ):
        assert any(fault.startswith(f"{name} cannot be used: ") for fault in found), name


def test_retired_variables_are_named_with_their_replacement() -> None:
    variables = {"ALGA_DB_HOST": "db", "ALGA_DB_PASSWORD": CANARY}
    environment = Environment(variables)
    gaps, harmless = retired_lines(environment, database(environment))
    assert gaps == [
        "ALGA_DB_HOST is retired and not read: set DB_HOST instead, and unset it",
        "ALGA_DB_PASSWORD is retired and not read: set DB_PASSWORD instead, and unset it",
    ]
    environment = Environment(variables | {"DB_HOST": "db"})
    gaps, harmless = retired_lines(environment, database(environment))
    assert (len(gaps), len(harmless)) == (1, 1)


# Files


@pytest.mark.parametrize(
    ("text", "fault"),
    [(None, "No such file"), ("", "the file is empty"), ("\n", "the file is empty"), (b"\xff\xfe", "no text")],
)
def test_secret_file_that_cannot_be_used_is_named(text: str | bytes | None, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    [found] = faults(LAPTOP | {"DB_PASSWORD_FILE": str(file)})
    assert found.startswith(f"DB_PASSWORD_FILE is '{file}': ")
    assert fault in found


def test_service_that_is_nowhere_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    assert faults({"PGSERVICE": "shop"}) == (
        f"PGSERVICE cannot be used: service 'shop' is not in {tmp_path}/.pg_service.conf",
    )


def test_service_file_is_read_as_libpq_reads_it(tmp_path: Path) -> None:
    """A % is a %, a # within a line is a #, later sections and directories count less."""
    (tmp_path / "pg_service.conf").write_text(f"# first\n[a]\nhost=db\nuser=u\npassword={CANARY}%s#;\n[b]\nhost=x\n")
    server = resolved({"PGSERVICE": "a", "PGSYSCONFDIR": str(tmp_path)})
    password = server.password(server.hosts[0])
    assert password
    assert password.value == f"{CANARY}%s#;"


@pytest.mark.parametrize("text", [f"password={CANARY}\n[a]", f"[a]\nhost=db\nsecret={CANARY}"])
def test_service_file_with_a_fault_is_not_quoted(text: str, tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(text)
    [fault] = faults({"PGSERVICE": "a"})
    assert ".pg_service.conf" in fault


def test_password_file_is_read_as_libpq_reads_it(tmp_path: Path) -> None:
    file = tmp_path / ".pgpass"
    file.touch(mode=0o600)
    file.write_text(f"# x\n\ntoo:few\nb:5432:*:app:of-b\n*:5432:shop:app:{CANARY}\\:\\\\:end\n*:*:*:*:late\n")
    server = resolved({"DATABASE_URL": "postgresql://app@a,b,c:1/shop"})
    found = [server.password(host) for host in server.hosts]
    assert [given and given.value for given in found] == [f"{CANARY}:\\:end", "of-b", "late"]
    assert seen(server)["password"] == (MASK, f"password file {file}")


def test_password_file_that_others_may_read_is_passed_over_and_reported(tmp_path: Path) -> None:
    (tmp_path / ".pgpass").write_text(f"*:*:*:*:{CANARY}")
    (tmp_path / ".pgpass").chmod(0o640)
    server = resolved(LAPTOP)
    assert server.password(server.hosts[0]) is None
    assert any("others may read it (chmod 600" in doubt for doubt in server.doubts())


# Connection strings


@pytest.mark.parametrize(
    ("text", "hosts", "user", "password", "dbname"),
    [
        ("postgresql://u:p%40%3A%25@h/d", "h:5432", "u", "p@:%", "d"),
        ("postgres://u:p@ss:w@h:1/d", "h:1", "u", "p@ss:w", "d"),
        ("postgresql+psycopg://u@h", "h:5432", "u", None, "u"),
        ("postgresql://u@[::1]:7,[fe80::2]/d", "[::1]:7,[fe80::2]:5432", "u", None, "d"),
        ("postgresql://u@a:1,b,c:3/d", "a:1,b:5432,c:3", "u", None, "d"),
        ("postgresql://u@/d?host=a,b&port=1,2", "a:1,b:2", "u", None, "d"),
        ("postgresql:///d?host=/run/x&user=u&password=p+q", "/run/x", "u", "p+q", "d"),
        ("postgresql://u@%2Frun%2Fx/d", "/run/x", "u", None, "d"),
        ("postgresql://u@h/a%2Fb?dbname=c", "h:5432", "u", None, "c"),
        ("  postgresql://u@h/d\n", "h:5432", "u", None, "d"),
    ],
)
def test_connection_string_is_taken_apart(text: str, hosts: str, user: str, password: str | None, dbname: str) -> None:
    server = at(text, Environment({})).resolve()
    given = server.password(server.hosts[0])
    assert ",".join(map(str, server.hosts)) == hosts
    assert (server.user, given and given.value, server.database) == (user, password, dbname)


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"mysql://u:{CANARY}@h/d",
        f"postgresql://u:{CANARY}@h:port/d",
        f"postgresql://u:{CANARY[:3]}/{CANARY}@h/d",
        f"postgresql://u:{CANARY}?{CANARY}@h/d",
        f"postgresql://u:{CANARY}#{CANARY}@h/d",
        f"postgresql://u:1/{CANARY}@h/d",
        f"postgresql://u:p@h/d?{CANARY}",
        f"postgresql://u@h/d?sslmode={CANARY}",
        f"postgresql://u@h/d?target_session_attrs={CANARY}",
        f"postgresql://u@h:{CANARY}/d",
        f"postgresql://u@h:99999/{CANARY}",
        f"postgresql://u:{CANARY}@,h/d",
        f"host=h password={CANARY}",
    ],
)
def test_connection_string_that_cannot_be_read_is_named_and_not_quoted(text: str) -> None:
    [fault] = faults({"DATABASE_URL": text})
    assert fault.startswith("DATABASE_URL cannot be used: ")
    assert CANARY not in str(database(Environment({"DATABASE_URL": text})))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://u:{CANARY}@h:1/d", f"postgresql://u:{MASK}@h:1/d"),
        (f"postgresql://u:{CANARY}@a:1,b/d?sslpassword={CANARY}", f"postgresql://u:{MASK}@a:1,b/d?sslpassword={MASK}"),
        (f"postgres://h/d?user=u&password={CANARY}", f"postgres://u:{MASK}@h/d"),
        (f"postgresql://u:{CANARY}@h/d?token={CANARY}", f"postgresql://u:{MASK}@h/d?{MASK}"),
        (f"postgresql://u:{CANARY}/x@h/d", MASK),
        (CANARY, MASK),
    ],
)
def test_connection_string_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert masked(Given(text, "X", "")) == shown


def test_parameters_of_others_are_passed_over_and_reported() -> None:
    variables = {"DATABASE_URL": f"postgresql://u@h/d?pgbouncer={CANARY}&keepalives=1&schema=public"}
    assert resolved(variables).database == "d"
    reported = unknown_parameters(Environment(variables))
    assert [line.split()[1] for line in reported] == ["pgbouncer", "schema"]
    assert CANARY not in str(reported)


# TLS


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        ("localhost", "disable"),
        ("127.0.0.1", "disable"),
        ("127.8.8.8", "disable"),
        ("::1", "disable"),
        ("/run/postgresql", "disable"),
        ("db", "verify-full"),
        ("10.0.0.1", "verify-full"),
        ("localhost.example.com", "verify-full"),
    ],
)
def test_tls_is_verified_unless_the_host_is_this_machine(host: str, mode: str) -> None:
    server = resolved({"PGHOST": host})
    assert seen(server)["sslmode"][0] == mode
    assert list(server.doubts()) == []


@pytest.mark.parametrize(
    ("asked", "mode", "doubtful"),
    [
        ("disable", "disable", True),
        ("prefer", "prefer", True),
        ("allow", "allow", True),
        ("require", "require", True),
        ("no-verify", "require", True),
        ("VERIFY_FULL", "verify-full", False),
    ],
)
def test_sslmode_is_used_and_a_weak_one_is_a_doubt(asked: str, mode: str, doubtful: bool) -> None:
    server = resolved({"PGHOST": "db", "PGSSLMODE": asked})
    assert seen(server)["sslmode"] == (mode, "environment variable PGSSLMODE")
    assert [doubt.startswith(f"PGSSLMODE asks for sslmode={mode}") for doubt in server.doubts()] == [True] * doubtful


@pytest.mark.parametrize(("switch", "mode"), [("true", "verify-full"), ("1", "verify-full"), ("FALSE", "disable")])
def test_plain_switch_means_all_or_nothing(switch: str, mode: str) -> None:
    assert seen(resolved({"DB_HOST": "db", "DB_SSL": switch}))["sslmode"][0] == mode
    assert seen(resolved({"DATABASE_URL": f"postgresql://db?ssl={switch}"}))["sslmode"][0] == mode


def test_channel_binding_is_made_up_for_by_verification() -> None:
    server = resolved({"DATABASE_URL": "postgresql://u@db/d?sslmode=require&channel_binding=require"})
    assert seen(server)["sslmode"][0] == "verify-full"
    assert any("channel_binding" in doubt for doubt in server.doubts())


@pytest.mark.parametrize("name", ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLCRL", "DB_SSLKEY"])
@pytest.mark.parametrize("text", [None, "nonsense"])
def test_certificate_that_cannot_be_read_is_named(name: str, text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    more = {"PGSSLCERT": str(file)} if name == "DB_SSLKEY" else {}
    [fault] = faults({"PGHOST": "db", **more, name: str(file)})
    assert fault.startswith((f"{name} cannot be used: ", "PGSSLCERT cannot be used: "))
    assert str(file) in fault


def test_public_authorities_are_no_authority_of_ones_own() -> None:
    [fault] = faults({"PGHOST": "db", "PGSSLMODE": "verify-ca"})
    assert fault.startswith("PGSSLMODE cannot be used: sslmode=verify-ca without sslrootcert")


# Several hosts, and the address for LISTEN


def test_of_several_hosts_the_writable_one_is_meant() -> None:
    assert resolved({"PGHOST": "a,b"}).target == "read-write"
    assert resolved({"PGHOST": "a"}).target == "any"
    assert resolved({"PGHOST": "a,b", "PGTARGETSESSIONATTRS": "any"}).target == "any"


def test_hosts_share_the_time_unless_it_is_set_for_each() -> None:
    assert resolved({"PGHOST": "a"}).timeout_s == 5.0
    assert resolved({"PGHOST": "a,b"}).timeout_s == 2.5
    assert resolved({"PGHOST": "a,b", "PGCONNECT_TIMEOUT": "9"}).timeout_s == 9.0


def test_listen_address_takes_names_and_secrets_but_no_host_from_the_other() -> None:
    way = "sslmode=disable&options=-cx%3D1"
    main = {"DATABASE_URL": f"postgresql://app:{CANARY}@pooler:6543/shop?{way}"}
    server = heard(main | {"OUTBOX_LISTEN_URL": "postgresql://direct"})
    assert (str(server.hosts[0]), server.user, server.database) == ("direct:5432", "app", "shop")
    assert seen(server)["password"] == (MASK, "environment variable DATABASE_URL")
    assert seen(server)["sslmode"][0] == "verify-full"
    assert server.optional("options") is None
    other = heard(main | {"OUTBOX_LISTEN_URL": "postgresql://other@direct"})
    assert other.password(other.hosts[0]) is None


@pytest.mark.parametrize("text", [CANARY, "postgresql:///shop", f"postgresql://u:{CANARY}@h:x/d"])
def test_listen_address_that_cannot_be_used_is_named_as_such(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        heard(LAPTOP | {"OUTBOX_LISTEN_URL": text})
    [fault] = raised.value.faults
    assert fault.startswith("OUTBOX_LISTEN_URL cannot be used: ")
    assert CANARY not in fault
