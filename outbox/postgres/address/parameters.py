"""The parameters of a connection by libpq's names, and the variables that give them.

What libpq has and the driver has not is refused where it asks for something, and passed over where it asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outbox.postgres.address.environment import Environment, Faults, Given, Layer


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: libpq's variable for it, and the single variables that many applications use instead."""

    name: str
    libpq: str | None = None
    single: tuple[str, ...] = ()
    secret: bool = False


PARAMETERS = (
    Parameter("host", "PGHOST", ("DB_HOST",)),
    Parameter("port", "PGPORT", ("DB_PORT",)),
    Parameter("dbname", "PGDATABASE", ("DB_NAME", "DB_NAME_SERVER")),
    Parameter("user", "PGUSER", ("DB_USER", "DB_USER_SERVER")),
    Parameter("password", "PGPASSWORD", ("DB_PASSWORD", "DB_PASS", "DB_PASSWORD_SERVER"), secret=True),
    Parameter("passfile", "PGPASSFILE"),
    Parameter("sslmode", "PGSSLMODE", ("DB_SSLMODE",)),
    Parameter("sslrootcert", "PGSSLROOTCERT", ("DB_SSLROOTCERT",)),
    Parameter("sslcert", "PGSSLCERT", ("DB_SSLCERT",)),
    Parameter("sslkey", "PGSSLKEY", ("DB_SSLKEY",)),
    Parameter("sslpassword", secret=True),
    Parameter("sslcrl", "PGSSLCRL"),
    Parameter("sslnegotiation", "PGSSLNEGOTIATION"),
    Parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    Parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    Parameter("channel_binding", "PGCHANNELBINDING"),
    Parameter("target_session_attrs", "PGTARGETSESSIONATTRS"),
    Parameter("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    Parameter("connect_timeout", "PGCONNECT_TIMEOUT"),
    Parameter("options", "PGOPTIONS"),
    Parameter("krbsrvname", "PGKRBSRVNAME"),
    Parameter("gsslib", "PGGSSLIB"),
    Parameter("hostaddr", "PGHOSTADDR"),
    Parameter("gssencmode", "PGGSSENCMODE"),
    Parameter("require_auth", "PGREQUIREAUTH"),
    Parameter("requirepeer", "PGREQUIREPEER"),
)
NAMES = frozenset(parameter.name for parameter in PARAMETERS)
SECRETS = frozenset(parameter.name for parameter in PARAMETERS if parameter.secret)
SSL = "DB_SSL"
HARMLESS = frozenset(
    {
        *("application_name", "client_encoding", "fallback_application_name", "service", "servicefile"),
        *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"),
        *("sslcertmode", "sslcompression", "sslsni", "gssdelegation", "min_protocol_version", "max_protocol_version"),
    }
)
"""Parameters of libpq that change nothing here, or are the worker's own business."""

_SSL_WORDS = {"true": "verify-full", "1": "verify-full", "on": "verify-full", "yes": "verify-full"} | dict.fromkeys(
    ("false", "0", "off", "no"), "disable"
)
_RETIRED = {
    "ALGA_DB_HOST": ("host", "DB_HOST"),
    "ALGA_DB_PORT": ("port", "DB_PORT"),
    "ALGA_DB_NAME": ("dbname", "DB_NAME"),
    "ALGA_DB_USER": ("user", "DB_USER"),
    "ALGA_DB_PASSWORD": ("password", "DB_PASSWORD"),
    "ALGA_DB_ADMIN_USER": ("user", "DB_USER"),
    "ALGA_DB_ADMIN_PASSWORD": ("password", "DB_PASSWORD"),
}


def libpq_layer(environment: Environment) -> Layer:
    """What libpq's variables say."""
    found = {p.name: environment.variable(p.libpq) for p in PARAMETERS if p.libpq}
    return {name: given for name, given in found.items() if given}


def single_layer(environment: Environment) -> Layer:
    """What the single variables say, each of which may stand in a file. Raises ConfigurationError."""
    layer: dict[str, Given] = {}
    faults = Faults()
    for parameter in PARAMETERS:
        with faults:
            if parameter.single and (given := environment.agreed(*parameter.single)):
                layer[parameter.name] = given
    with faults:
        _add_ssl(layer, environment)
    faults.settle()
    return layer


def _add_ssl(layer: dict[str, Given], environment: Environment) -> None:
    """Add what DB_SSL says, a plain yes or no, where no mode says it more exactly."""
    switch = environment.variable(SSL)
    if switch is None:
        return
    mode = ssl_mode(switch)
    exact = layer.setdefault("sslmode", mode)
    if (mode.value == "disable") != (exact.value == "disable"):
        raise switch.fault(f"{exact.name} says something else: unset one of them")


def ssl_mode(switch: Given) -> Given:
    """The sslmode for a yes or no. Yes means all of it: the server's certificate is verified."""
    mode = _SSL_WORDS.get(switch.value.lower())
    if mode is None:
        raise switch.fault("write true or false; for anything finer there is DB_SSLMODE")
    return Given(mode, switch.name, switch.origin)


def retired(environment: Environment) -> Iterator[tuple[str, str]]:
    """Variables of former times that are set: the parameter that each meant, and a line that names its replacement."""
    for name, (parameter, replacement) in _RETIRED.items():
        if environment.variable(name):
            yield parameter, f"{name} is retired and not read: set {replacement} instead, and unset it"
