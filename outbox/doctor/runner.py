"""Runs the checks: if one fails, the others still run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from outbox.doctor.queries import DoctorQueries
from outbox.model.errors import OutboxError, clean
from outbox.model.finding import Check, Finding

if TYPE_CHECKING:
    from outbox.postgres.pool import Pool

S = TypeVar("S")
_SEE = "see the reason, and examine once more"


class MissingPrerequisite(OutboxError):
    """What a check needs is not there; the text says what, as the end of a sentence that begins with because."""


class Prerequisites:
    """What checks stand on, as far as it is there. Asking for what is not raises MissingPrerequisite."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.pool: Pool | None = None
        self.way = False
        """Whether some host lets us in."""
        self.no_schema: str | None = None
        """Why nothing can be asked of the schema, although there is a connection."""

    def connections(self) -> Pool:
        """Connections to the server."""
        if self.pool is None:
            raise MissingPrerequisite("there is no way into PostgreSQL")
        return self.pool

    def questions(self) -> DoctorQueries:
        """Questions to the server."""
        return DoctorQueries(self.connections(), self.schema)

    def outbox(self) -> DoctorQueries:
        """Questions to a schema that is this version's."""
        self.connections()
        if self.no_schema is not None:
            raise MissingPrerequisite(self.no_schema)
        return self.questions()

    def statements(self, make: Callable[[Pool, str], S]) -> S:
        """The worker's own statements on it, of one kind."""
        self.outbox()
        return make(self.connections(), self.schema)


async def section(checks: Sequence[Check], carry_out: Callable[[], Awaitable[Iterable[Finding]]]) -> list[Finding]:
    """What these checks find. Where something is missing that they stand on, they are not tried.

    A check that fails although nothing is missing counts as a fault if it can be one: an unknown state is not safe.
    """
    try:
        return list(await carry_out())
    except MissingPrerequisite as missing:
        return [check.untried(clean(str(missing))) for check in checks]
    except OutboxError as error:
        reason = clean(str(error))
    except Exception as error:  # noqa: BLE001 - the doctor's own fault must not keep its other findings back
        reason = clean(f"{type(error).__name__}: {error}")
    return [
        check.fault(f"cannot be examined: {reason}", _SEE) if "fault" in check.grades else check.untried(reason)
        for check in checks
    ]
