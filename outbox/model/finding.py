"""The result of an examination: one thing that was examined, its state, and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["good", "warning", "fault"]
"""warning: works and will hurt. fault: a worker must not be started, or would do nothing. Or it may be so, untried."""
_UNTRIED = "not tried: because "


def quoted(name: str) -> str:
    """A name as SQL takes it. It may contain anything and may be a word of SQL."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked up or tried just now. No secret is in it."""

    what: str
    grade: Grade
    detail: str
    cure: str | None = None
    """What to do: lines to be copied, commands or SQL, where such do it. None if nothing is wrong."""

    @property
    def reason_untried(self) -> str | None:
        """Why it could not even be tried; None if it was."""
        return self.detail.removeprefix(_UNTRIED) if self.detail.startswith(_UNTRIED) else None


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the doctor's, by its name in the documentation. `grades` is all that it may come to beside good."""

    what: str
    grades: tuple[Grade, ...]

    def good(self, detail: str) -> Finding:
        """Nothing is wrong."""
        return Finding(self.what, "good", detail)

    def warning(self, detail: str, cure: str) -> Finding:
        """It works, and will hurt."""
        assert "warning" in self.grades, self
        return Finding(self.what, "warning", detail, cure)

    def fault(self, detail: str, cure: str) -> Finding:
        """It does not work."""
        assert "fault" in self.grades, self
        return Finding(self.what, "fault", detail, cure)

    def untried(self, because: str) -> Finding:
        """What it needs is not there. An unknown state counts as the worst grade."""
        return Finding(self.what, "fault" if "fault" in self.grades else "warning", f"{_UNTRIED}{because}")
