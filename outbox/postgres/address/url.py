"""Connection strings, read as libpq does. Beyond that a password may hold an @, and the scheme may name a driver.

A fault never quotes: the text in place of the port may be the beginning of a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from outbox.model.errors import ConfigurationError
from outbox.model.mask import MASK
from outbox.postgres.address.environment import Given, Layer
from outbox.postgres.address.parameters import HARMLESS, NAMES, SECRETS, ssl_mode

_SHAPE = re.compile(r"(?P<scheme>[\w+:]+)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_SCHEME = re.compile(r"postgres(ql)?(\+\w+)?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d*))?")
_AS_ESCAPES = "write / ? # @ % in a password as %2F %3F %23 %40 %25"
_ALIASES = {"database": "dbname"}


@dataclass(frozen=True, slots=True)
class Url:
    """A connection string, taken apart. `unknown` are parameters that mean nothing to us."""

    layer: Layer
    service: Given | None
    servicefile: Given | None
    unknown: tuple[str, ...]
    masked: str


def parse(url: Given) -> Url:
    """Take a connection string apart. Raises ConfigurationError."""
    shape = _SHAPE.fullmatch(url.value.strip())
    if shape is None or not _SCHEME.fullmatch(shape["scheme"]):
        if re.match(r"postgres(ql)?(\+\w+)?://", url.value.strip(), re.IGNORECASE):
            raise url.fault(f"it has a # ({_AS_ESCAPES})")
        raise url.fault("write it as postgresql://user:password@host:port/database")
    credentials, _, hosts = shape["authority"].rpartition("@")
    user, _, password = credentials.partition(":")
    path, queried = shape["path"] or "", dict(_query(url, shape["query"] or ""))
    if "@" in path:
        raise url.fault(f"there is an @ behind the host ({_AS_ESCAPES})")
    values = dict(_hosts(url, hosts)) | {"user": unquote(user), "password": unquote(password)}
    values["dbname"] = unquote(path[1:])
    # As in libpq, the parameters count more than the part before them.
    values = {name: value for name, value in values.items() if value} | queried
    values = {name: value for name, value in values.items() if value}
    given = {name: Given(value, url.name, url.origin) for name, value in values.items()}
    if "ssl" in given:
        given.setdefault("sslmode", ssl_mode(given.pop("ssl")))
    return Url(
        {name: value for name, value in given.items() if name in NAMES},
        given.get("service"),
        given.get("servicefile"),
        tuple(name for name in given if name not in NAMES | HARMLESS),
        _masked(values, shape["scheme"]),
    )


def masked(url: Given) -> str:
    """A connection string without its secrets; if it cannot be read, without anything."""
    try:
        return parse(url).masked
    except ConfigurationError:
        return MASK


def _hosts(url: Given, text: str) -> Iterator[tuple[str, str]]:
    """Hosts and ports, as libpq writes several."""
    if not text:
        return
    matches = [_HOST.fullmatch(spec) for spec in text.split(",")]
    if not all(matches):
        raise url.fault(f"the port is not a number ({_AS_ESCAPES})")
    found = [match for match in matches if match]
    yield "host", ",".join(match["v6"] or unquote(match["name"]) for match in found)
    if any(match["port"] for match in found):
        yield "port", ",".join(match["port"] or "" for match in found)


def _query(url: Given, text: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, text.split("&")):
        name, equals, value = item.partition("=")
        if not equals:
            raise url.fault(f"behind the ? there is something that is no name=value ({_AS_ESCAPES})")
        name = unquote(name)
        yield _ALIASES.get(name, name), unquote(value)


def _masked(values: dict[str, str], scheme: str) -> str:
    """Put a connection string together again, from what was understood."""
    shown = {name: MASK if name in SECRETS else value for name, value in values.items()}
    user, password = shown.pop("user", ""), shown.pop("password", "")
    who = quote(user, safe="") + (f":{password}" if password else "")
    hosts, ports = shown.pop("host", "").split(","), shown.pop("port", "").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    where = [
        (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=True)
    ]
    path = quote(shown.pop("dbname", ""), safe="")
    query = "&".join(f"{name}={value if value == MASK else quote(value, safe='')}" for name, value in shown.items())
    known = query if all(name in NAMES | HARMLESS | {"ssl"} for name in shown) else MASK
    return f"{scheme}://{who}{'@' if who else ''}{','.join(where)}/{path}{'?' if query else ''}{known}"
