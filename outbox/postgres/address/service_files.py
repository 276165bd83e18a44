"""libpq's connection service file, and its password file. Read by ourselves: the driver gets both wrong.

asyncpg 0.32 does not use PGSERVICE, and skips a missing service or file. It fails on a % in a service's password, and
leaves the backslashes in a password from the password file.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from configparser import Error, RawConfigParser
from pathlib import Path

from outbox.model.errors import ConfigurationError
from outbox.postgres.address.environment import Environment, Given, Layer
from outbox.postgres.address.parameters import HARMLESS, NAMES

_NO_SECTION = "\0"
_FIELD = re.compile(r"((?:\\.|[^:\\])*)(?::|$)")


def home_file(name: str) -> Path | None:
    """A file in the home directory, where there is a home."""
    try:
        return Path.home() / name
    except RuntimeError:
        return None


def service_layer(service: Given, file: Given | None, environment: Environment) -> Layer:
    """The parameters of a service. Raises ConfigurationError if no service file has it."""
    looked: list[str] = []
    for path in _service_files(file, environment):
        looked.append(str(path))
        parser = RawConfigParser(
            delimiters=("=",), comment_prefixes=("#",), strict=False, default_section=_NO_SECTION, allow_no_value=True
        )
        try:
            with path.open(encoding="utf-8") as text:
                parser.read_file(text)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(f"service file {path}: {error.strerror}") from error
        except (Error, ValueError):  # their texts quote lines, which may hold passwords
            raise ConfigurationError(f"service file {path}: not all of its lines are [service] or name=value") from None
        if parser.has_section(service.value):
            return _layer(dict(parser.items(service.value)), f"service {service.value} in {path}")
    raise service.fault(f"service {service.value!r} is not in {' or '.join(looked) or 'any service file'}")


def _layer(values: dict[str, str | None], where: str) -> Layer:
    strangers = [name for name in values if name not in NAMES | HARMLESS]
    if strangers:
        raise ConfigurationError(f"{where}: there is no parameter {', '.join(strangers)}")
    return {name: Given(value, f"{name} of {where}", where) for name, value in values.items() if value}


def _service_files(file: Given | None, environment: Environment) -> Iterator[Path]:
    file = file or environment.variable("PGSERVICEFILE")
    own = Path(file.value) if file else home_file(".pg_service.conf")
    if own:
        yield own
    directory = environment.variable("PGSYSCONFDIR")
    if directory:
        yield Path(directory.value) / "pg_service.conf"


class PasswordFile:
    """A password file, as libpq reads it: only if no other user may. `doubt` says why it is skipped."""

    def __init__(self, named: Given | None) -> None:
        self.path = Path(named.value) if named else home_file(".pgpass")
        self.doubt: str | None = None
        self._lines: list[list[str]] = []
        if self.path is None:
            return
        try:
            mode = self.path.stat().st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                self.doubt = (
                    f"password file {self.path} is passed over: others may read it (chmod 600, or DB_PASSWORD_FILE)"
                )
                return
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            if named:
                reason = error.strerror if isinstance(error, OSError) else "the file is no text"
                self.doubt = f"password file {self.path} is passed over: {reason}"
            return
        self._lines = [_fields(line) for line in lines if line.strip() and not line.startswith("#")]

    def password(self, host: str, port: int, database: str, user: str) -> Given | None:
        """The first line's that fits. Sockets go by their directory, or as localhost."""
        hosts = (host, "localhost") if host.startswith(("/", "@")) else (host,)
        wanted = (hosts, (str(port),), (database,), (user,))
        for line in self._lines:
            if len(line) == 5 and all(field == "*" or field in fit for field, fit in zip(line, wanted, strict=False)):
                return Given(line[4], f"password file {self.path}", f"password file {self.path}")
        return None


def _fields(line: str) -> list[str]:
    r"""Four fields and the password, in which \: and \\ stand for themselves."""
    fields, rest = [], line
    for _ in range(4):
        match = _FIELD.match(rest)
        if match is None:
            return []
        fields.append(match[1])
        rest = rest[match.end() :]
    return [re.sub(r"\\(.)", r"\1", field) for field in (*fields, rest)]
