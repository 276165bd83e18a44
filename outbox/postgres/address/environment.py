"""Given values, each with its origin: the environment, and the files that it names.

A secret may be in a file: `NAME_FILE` names it. The file is read at each use, so that a secret can be rotated while a
worker runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Self, TypeAlias

from outbox.model.errors import ConfigurationError

FILE = "_FILE"
_OURS, _NEARLY, _LETTERS = ("OUTBOX_", "DB_"), 0.75, 2


@dataclass(frozen=True, slots=True)
class Given:
    """A value. `name` is what its reader set and will look for; `origin` says it in full."""

    value: str = field(repr=False)
    name: str
    origin: str

    def fault(self, text: str) -> ConfigurationError:
        """What is wrong with this value, which is not shown: it may hold a secret, or be one by mistake."""
        return ConfigurationError(f"{self.name} cannot be used: {text}")


Layer: TypeAlias = Mapping[str, Given]
"""Connection parameters, by libpq's names, as one source gives them."""


class Environment:
    """Environment variables and the files that they name. An empty variable counts as not set."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def variable(self, name: str) -> Given | None:
        """One variable."""
        value = self._variables.get(name)
        return Given(value, name, f"environment variable {name}") if value else None

    def find(self, *names: str) -> Given | None:
        """The first of these that is set, as itself or as a file.

        Raises ConfigurationError where a name says two things, or its file cannot be read.
        """
        for name in names:
            plain, filed = self.variable(name), self._from_file(name)
            if plain and filed and plain.value != filed.value:
                raise ConfigurationError(f"{name} and {name}{FILE} are both set and differ: unset one of them")
            if plain or filed:
                return plain or filed
        return None

    def agreed(self, *names: str) -> Given | None:
        """The one value that all of these give that are set. Raises ConfigurationError where they differ."""
        found = [given for name in names if (given := self.find(name))]
        for other in found[1:]:
            if other.value != found[0].value:
                raise ConfigurationError(f"{found[0].name} and {other.name} are both set and differ: unset one of them")
        return found[0] if found else None

    def misspelt(self, known: Collection[str]) -> Iterator[str]:
        """A line for each variable that is none of these names, and nearly one: what others read differs by a word."""
        for name in sorted(self._variables.keys() - known):
            like = [other for other in known if abs(len(other) - len(name)) <= _LETTERS]
            for prefix in filter(name.startswith, _OURS):
                own = [other.removeprefix(prefix) for other in like if other.startswith(prefix)]
                for near in get_close_matches(name.removeprefix(prefix), own, 1, _NEARLY):
                    yield f"{name} is no setting, and is passed over: is {prefix}{near} meant?"

    def _from_file(self, name: str) -> Given | None:
        path = self.variable(name + FILE)
        return from_file(path) if path else None


def from_file(path: Given) -> Given:
    """The content of the file that a variable names. Raises ConfigurationError."""
    try:
        value = Path(path.value).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(f"{path.name} is {path.value!r}: {error.strerror}") from error
    except ValueError:  # its text quotes what was read
        raise ConfigurationError(f"{path.name} is {path.value!r}: the file is no text") from None
    if not value:
        raise ConfigurationError(f"{path.name} is {path.value!r}: the file is empty")
    return Given(value, path.name, f"file {path.value}, named by {path.name}")


class Faults:
    """Collects faults, so that all of them can be reported at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, ConfigurationError):
            return False
        self.found += [fault for fault in error.faults if fault not in self.found]
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def settle(self) -> None:
        """Raise ConfigurationError if anything was found."""
        if self.found:
            raise ConfigurationError(*self.found)
