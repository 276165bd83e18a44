"""The one tree of errors. Each carries its data as attributes and the exit code it means for the command line."""

from __future__ import annotations

from traceback import walk_tb

_LONGEST_DETAIL = 2000
"""Characters of an error text that are kept; servers echo whole payloads now and then."""


def clean(detail: str) -> str:
    """An error text that PostgreSQL can store: bounded, valid UTF-8, and without the NUL that its text type refuses."""
    text = detail[:_LONGEST_DETAIL].encode("utf-8", "replace").decode()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def place_of(error: BaseException) -> str:
    """Class and place of an error that foreign code raised, without its text: that may quote a payload."""
    frames = list(walk_tb(error.__traceback__))
    if not frames:
        return type(error).__name__
    frame, line = frames[-1]
    return f"{type(error).__name__} in {frame.f_globals.get('__name__', '?')}, {frame.f_code.co_name}, line {line}"


class OutboxError(Exception):
    """Anything that this package raises on purpose. Its text is one line that names the cause and the cure."""

    exit_code = 1


class ConfigurationError(OutboxError):
    """A setting is missing or unusable. `faults` holds every fault that was found, one line each."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


class SchemaError(OutboxError):
    """The outbox schema in the database is absent, too old, too new, or was edited."""

    exit_code = 3


class DatabaseUnavailable(OutboxError):
    """PostgreSQL did not answer, refused the connection, or answered read-only. Trying again may help."""


class DatabaseReadOnly(DatabaseUnavailable):
    """This server takes no writes: it is a standby, or was made one. Another one behind the same address may."""


class StatementTimedOut(DatabaseUnavailable):
    """PostgreSQL gave a statement up: it took too long, most often because of a lock."""


class AccessLost(DatabaseUnavailable):
    """PostgreSQL has let us in before and now refuses: a secret is being rotated, or something needs repair."""


class DatabaseRefused(OutboxError):
    """PostgreSQL understood the statement and refused it. Trying again will not help.

    `sqlstate` is PostgreSQL's five-character error code.
    """

    def __init__(self, message: str, *, sqlstate: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)

    @property
    def blames_values(self) -> bool:
        """Whether it was for what was to be written, not for a right that is missing or a statement that is wrong."""
        return self.sqlstate[:2] in ("21", "22", "23")


class PayloadError(OutboxError):
    """A producer's value has no JSON form. Nothing has been sent."""
