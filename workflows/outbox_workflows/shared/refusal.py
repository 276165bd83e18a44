"""How an activity says no: for good, and without an alarm, because nothing is broken."""

from __future__ import annotations

from typing import NoReturn

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory


def refuse(type_: str, message: str) -> NoReturn:
    """Fail the activity for good. Temporal's worker writes no traceback for it, and counts no failure."""
    raise ApplicationError(message, type=type_, non_retryable=True, category=ApplicationErrorCategory.BENIGN)
