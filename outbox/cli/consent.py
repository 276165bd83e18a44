"""Asks for consent before a command that cannot be undone."""

from __future__ import annotations

import sys

import typer

from outbox.model.errors import ConfigurationError, OutboxError

_NOTHING = "nothing was done"


def consent(question: str, *, cure: str) -> None:
    """Ask at the terminal. Raises OutboxError for a no; without a terminal, ConfigurationError with `cure`."""
    _need_terminal(cure)
    if not typer.confirm(question, err=True):
        raise OutboxError(_NOTHING)


def consent_by_name(question: str, name: str, *, cure: str) -> None:
    """Have a name typed. Raises OutboxError for another name; without a terminal, ConfigurationError with `cure`."""
    _need_terminal(cure)
    if typer.prompt(question, default="", show_default=False, err=True).strip() != name:
        raise OutboxError(f"{_NOTHING}: that is not its name")


def _need_terminal(cure: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{_NOTHING}: {cure}")
