"""What a connection needs, put together and checked as a whole: hosts, names, passwords, TLS."""

from __future__ import annotations

import getpass
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from outbox.model.errors import ConfigurationError
from outbox.model.mask import MASK
from outbox.postgres.address.environment import Faults, Given, Layer
from outbox.postgres.address.parameters import PARAMETERS, SECRETS
from outbox.postgres.address.service_files import PasswordFile
from outbox.postgres.address.tls import Tls

CONNECT_TIMEOUT_S = 5.0
"""Bounds an attempt to connect, TLS and authentication included. Hosts share it; connect_timeout is for each."""
_SHORTEST_TIMEOUT_S = 1.5
_SOCKETS = ("/run/postgresql", "/var/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
_WRITING = {"any", "primary", "read-write"}
_READING = {"standby", "prefer-standby", "read-only"}
_ASKS_FOR_NOTHING = {
    "gssencmode": {"disable", "prefer"},
    "require_auth": set[str](),
    "requirepeer": set[str](),
    "hostaddr": set[str](),
}
_CHOICES = {
    "load_balance_hosts": ("disable", "random"),
    "gsslib": ("gssapi", "sspi"),
    "channel_binding": ("disable", "prefer", "require"),
}
_INSTEAD = {"hostaddr": "write the host's name, or its address, in host"}


@dataclass(frozen=True, slots=True)
class Host:
    """One place where PostgreSQL may be. A name that begins with / or @ is a socket."""

    name: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether it is reached through a Unix socket."""
        return self.name.startswith(("/", "@"))

    def __str__(self) -> str:
        """As people write it."""
        return (
            self.name
            if self.is_socket
            else f"[{self.name}]:{self.port}"
            if ":" in self.name
            else f"{self.name}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """All that a connection needs, as it was said at this moment."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    target: str
    tls: Tls
    given: Layer = field(repr=False)
    passwords: PasswordFile = field(repr=False)

    def named(self, parameter: str) -> str:
        """The name of the setting that gave a parameter, for messages about it."""
        given = self.given.get(parameter)
        return given.name if given else parameter

    def password(self, host: Host) -> Given | None:
        """The password for a host."""
        return self.given.get("password") or self.passwords.password(host.name, host.port, self.database, self.user)

    def optional(self, parameter: str) -> str | None:
        """A parameter as it was given, or None."""
        given = self.given.get(parameter)
        return given.value if given else None

    @property
    def timeout_s(self) -> float:
        """Seconds for one host."""
        asked = self.optional("connect_timeout")
        if asked is not None and int(asked) > 0:
            return float(asked)
        return max(CONNECT_TIMEOUT_S / len(self.hosts), _SHORTEST_TIMEOUT_S)

    def in_turn(self) -> list[Host]:
        """The hosts in the order in which to try them."""
        hosts = list(self.hosts)
        if self.optional("load_balance_hosts") == "random":
            random.shuffle(hosts)
        return hosts

    def doubts(self) -> Iterator[str]:
        """What is allowed, and should not be as it is."""
        for host in self.hosts:
            doubt = self.tls.doubt(host.name)
            if doubt:
                yield doubt
        if self.passwords.doubt and "password" not in self.given:
            yield self.passwords.doubt
        binding = self.given.get("channel_binding")
        if binding and binding.value == "require":
            yield (
                f"{binding.name} asks for channel_binding=require, which the driver cannot do: "
                "the server's certificate is verified in full instead"
            )

    def shown(self) -> Iterator[Given]:
        """The effective parameters for people, without secrets."""
        for parameter in PARAMETERS:
            given = self.given.get(parameter.name)
            if parameter.name == "sslmode":
                for mode in {self.tls.mode(host.name) for host in self.hosts}:
                    yield Given(mode.value, "sslmode", mode.origin)
            elif parameter.name == "password" and given is None:
                found = next(filter(None, map(self.password, self.hosts)), None)
                yield Given(MASK if found else "", "password", found.origin if found else "not given")
            elif given:
                yield Given(MASK if parameter.name in SECRETS else given.value, parameter.name, given.origin)


def settled(given: Layer, what: str) -> ConnectionParameters:
    """Put together what was given for a connection; `what` names it where nothing did. Raises ConfigurationError."""
    all_given = dict(given)
    faults = Faults()
    hosts: tuple[Host, ...] = ()
    with faults:
        hosts = _hosts(all_given)
    with faults:
        _name(all_given, what)
    for check in (_check_target, _check_choices, _check_unsupported, _check_timeout):
        with faults:
            check(all_given, len(hosts))
    tls = Tls(all_given)
    with faults:
        tls.direct()
    for host in hosts:
        with faults:
            tls.contexts(host.name)  # reads every file that was named
    faults.settle()
    return ConnectionParameters(
        hosts,
        all_given["user"].value,
        all_given["dbname"].value,
        all_given["target_session_attrs"].value,
        tls,
        all_given,
        PasswordFile(all_given.get("passfile")),
    )


def _hosts(given: dict[str, Given]) -> tuple[Host, ...]:
    host = given.get("host")
    if host is None:
        host = given["host"] = Given(_default_host(given), "host", "default")
    port = given.setdefault("port", Given("5432", "port", "default"))
    names = [name.strip("[] ") for name in host.value.split(",")]
    if not all(names):
        raise host.fault("one of the hosts has no name")
    ports = [text.strip() or "5432" for text in port.value.split(",")]
    if not all(text.isascii() and text.isdigit() and 0 < int(text) < 65536 for text in ports):
        raise port.fault("the port is not a number from 1 to 65535")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise port.fault(f"there are {len(ports)} ports for {len(names)} hosts")
    return tuple(Host(name, int(text)) for name, text in zip(names, ports, strict=True))


def _default_host(given: dict[str, Given]) -> str:
    port = given["port"].value if "port" in given else "5432"
    for directory in _SOCKETS:
        if Path(directory, f".s.PGSQL.{port}").exists():
            return directory
    return "localhost"


def _name(given: dict[str, Given], what: str) -> None:
    """Fill in the user and the database, as libpq does."""
    if "user" not in given:
        try:
            given["user"] = Given(getpass.getuser(), "user", "default, this process's user")
        except (KeyError, OSError):  # a user without an entry in the system, as in containers
            raise ConfigurationError(f"{what} names no user: set one there, or in DB_USER or PGUSER") from None
    given.setdefault("dbname", Given(given["user"].value, "dbname", "default, the user's name"))


def _check_target(given: dict[str, Given], hosts: int) -> None:
    """Of several hosts the one that takes writes is meant. Of one it shows later, and may change."""
    default = "read-write" if hosts > 1 else "any"
    target = given.setdefault("target_session_attrs", Given(default, "target_session_attrs", "default"))
    if target.value in _READING:
        raise target.fault(
            f"target_session_attrs={target.value} leads to a server that takes no writes: the worker writes"
        )
    if target.value not in _WRITING:
        raise target.fault("target_session_attrs must be any, primary or read-write")


def _check_choices(given: dict[str, Given], _hosts: int) -> None:
    faults = Faults()
    for name, choices in _CHOICES.items():
        with faults:
            if name in given and given[name].value not in choices:
                raise given[name].fault(f"{name} must be {' or '.join(choices)}")
    faults.settle()


def _check_unsupported(given: dict[str, Given], _hosts: int) -> None:
    faults = Faults()
    for name, accepted in _ASKS_FOR_NOTHING.items():
        if name in given and given[name].value not in accepted:
            with faults:
                raise given[name].fault(f"the driver has no {name}: {_INSTEAD.get(name, 'leave it out')}")
    faults.settle()


def _check_timeout(given: dict[str, Given], _hosts: int) -> None:
    timeout = given.get("connect_timeout")
    if timeout and not (timeout.value.isascii() and timeout.value.isdigit() and int(timeout.value) <= 60):
        raise timeout.fault("connect_timeout must be whole seconds, 60 at most; 0 is the default")
