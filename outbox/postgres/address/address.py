"""Where a database is and how to get in, by one order of precedence, which docs/configuration.md shows.

An address holds no password. It says where to look, and each connection looks again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

from outbox.model.errors import ConfigurationError
from outbox.postgres.address.environment import FILE, Environment, Faults, Given, Layer
from outbox.postgres.address.parameters import PARAMETERS, SSL, libpq_layer, retired, single_layer
from outbox.postgres.address.server import ConnectionParameters, settled
from outbox.postgres.address.service_files import service_layer
from outbox.postgres.address.url import Url, parse

OWN, SHARED, LISTEN = "OUTBOX_DATABASE_URL", "DATABASE_URL", "OUTBOX_LISTEN_URL"
NOTHING_SET = f"{SHARED}, DB_HOST and libpq's PGHOST and PGSERVICE are not set: say where PostgreSQL is"
_SAYS_WHERE = {"host", "dbname"}
_OF_ANOTHER_HOST = {
    *("host", "port", "hostaddr", "sslmode", "sslnegotiation", "channel_binding"),
    *("target_session_attrs", "load_balance_hosts", "options"),
}


class Address:
    """Where a database is. `resolve` reads what was said, files included, and raises ConfigurationError."""

    def __init__(self, gather: Callable[[], Layer], name: str) -> None:
        self.gather = gather
        """What was said, unchecked."""
        self.name = name
        """The setting that a reader would look at first."""

    def resolve(self) -> ConnectionParameters:
        """All that a connection needs, at this moment."""
        return settled(self.gather(), self.name)

    def __str__(self) -> str:
        """Where it leads, for people, and nothing else of it."""
        try:
            return f"PostgreSQL at {','.join(map(str, self.resolve().hosts))}"
        except ConfigurationError:
            return "PostgreSQL"


Where: TypeAlias = Address | str
"""An address, or a connection string that is completed by libpq's variables."""


def at(dsn: str, environment: Environment | None = None) -> Address:
    """The address in a connection string; libpq's variables may give what it leaves out."""
    environment = environment or Environment(os.environ)
    url = Given(dsn, SHARED, "argument")
    return Address(lambda: _completed([parse(url)], {}, environment), SHARED)


def database(environment: Environment, dsn: str | None = None) -> Address:
    """The address of the outbox's database; `dsn` goes before anything that the environment says."""
    if dsn is not None:
        return at(dsn, environment)
    return Address(lambda: _gather(environment), SHARED)


def listening(environment: Environment, main: Address, dsn: str | None = None) -> Address | None:
    """The address for what needs a session of its own: `dsn`, or OUTBOX_LISTEN_URL; None where neither is set.

    Who logs in, and to which database, it takes from the other address where it does not say.
    """
    if dsn is None and environment.variable(LISTEN) is None and environment.variable(f"{LISTEN}_FILE") is None:
        return None

    def gather() -> Layer:
        given = environment.find(LISTEN) if dsn is None else Given(dsn, LISTEN, "argument")
        assert given is not None
        url = parse(given)
        own = {**_served(url, environment), **url.layer}
        if "host" not in own:
            raise given.fault("it names no host")
        inherited = {name: value for name, value in main.resolve().given.items() if name not in _OF_ANOTHER_HOST}
        if own.get("user", inherited["user"]).value != inherited["user"].value:
            inherited.pop("password", None)  # it is another's
        standing = libpq_layer(environment)
        return {**{n: standing[n] for n in ("sslmode", "options") if n in standing}, **inherited, **own}

    return Address(gather, LISTEN)


def unknown_parameters(environment: Environment) -> list[str]:
    """A line for each parameter of the connection strings that means nothing to us."""
    lines = []
    own = environment.variable(OWN) or environment.variable(f"{OWN}_FILE")
    for name in (OWN if own else SHARED, LISTEN):
        with Faults():  # they are reported where the address is read
            given = environment.find(name)
            strangers = parse(given).unknown if given else ()
            lines += [f"{name}: {stranger} means nothing to the worker and is passed over" for stranger in strangers]
    return lines


def variables() -> Iterator[str]:
    """The names of every variable of our own kind that says something of a connection."""
    plain = [OWN, LISTEN, SSL, *(name for parameter in PARAMETERS for name in parameter.single)]
    for name in plain:
        yield from (name, name + FILE)


def retired_lines(environment: Environment, main: Address) -> tuple[list[str], list[str]]:
    """Retired variables that are set: those that leave a gap, which are faults, and those that do no harm."""
    known: Layer = {}
    with Faults():  # they are reported where the address is read
        known = main.gather()
    faults: list[str] = []
    doubts: list[str] = []
    for parameter, line in retired(environment):
        (doubts if parameter in known else faults).append(line)
    return faults, doubts


def _gather(environment: Environment) -> Layer:
    """Everything that the environment says about the database, each parameter from where it counts most."""
    own = environment.find(OWN)
    if own is not None:
        return _completed([parse(own)], {}, environment)
    faults = Faults()
    urls: list[Url] = []
    singles: Layer = {}
    with faults:
        shared = environment.find(SHARED)
        urls = [parse(shared)] if shared else []
    with faults:
        singles = single_layer(environment)
    for url in urls:
        faults.found += _disagreements(url.layer, singles)
    faults.settle()
    return _completed(urls, singles, environment)


def _completed(urls: list[Url], singles: Layer, environment: Environment) -> Layer:
    """Fill what is left open from the service and from libpq's variables."""
    said = {**singles, **(urls[0].layer if urls else {})}
    variables = libpq_layer(environment)
    served = _served(urls[0] if urls else None, environment)
    if not urls and not served and not _SAYS_WHERE & (said.keys() | variables.keys()):
        raise ConfigurationError(NOTHING_SET)
    return {**variables, **served, **said}


def _served(url: Url | None, environment: Environment) -> Layer:
    service = (url.service if url else None) or environment.variable("PGSERVICE")
    return service_layer(service, url.servicefile if url else None, environment) if service else {}


def _disagreements(url: Layer, singles: Layer) -> list[str]:
    """A line for each parameter about which the connection string and a single variable differ."""
    lines = []
    for name in url.keys() & singles.keys():
        one, other = url[name], singles[name]
        switched = other.name == "DB_SSL"
        same = (one.value == "disable") == (other.value == "disable") if switched else one.value == other.value
        if not same:
            lines.append(
                f"{one.name} and {other.name} differ about the {name}: unset one of them, "
                f"or say in {OWN} what holds for the outbox alone"
            )
    return sorted(lines)
