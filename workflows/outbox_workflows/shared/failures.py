"""What failures say, for audit trails and for people. Pure."""

from __future__ import annotations

from temporalio.exceptions import ActivityError, ApplicationError, FailureError


def reason_of(error: BaseException) -> str:
    """Why an activity or a workflow failed, in one line and without the names of Temporal's classes."""
    cause = _cause_of(error)
    text = cause.message if isinstance(cause, FailureError) else str(cause)
    return " ".join(text.split()) or type(cause).__name__


def type_of(error: BaseException) -> str | None:
    """The error type of a failed activity; None if it gave none, for example after a time-out."""
    cause = _cause_of(error)
    return cause.type if isinstance(cause, ApplicationError) else None


def _cause_of(error: BaseException) -> BaseException:
    return error.cause if isinstance(error, ActivityError) and error.cause is not None else error
