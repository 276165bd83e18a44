"""The commands in the order in which a new user needs them, in panels of `outbox --help`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PANELS = {
    "Set up": ("demo", "config", "migrate", "doctor", "routes", "import"),
    "Run": ("run", "workflows"),
    "Look": ("status", "find", "health", "audit", "bench"),
    "Operate": ("dead", "cancel", "pause", "resume", "limit", "mode", "adopt", "prune"),
    "Develop": ("enqueue", "reset"),
}
_PLACES = {name: panel for panel, names in PANELS.items() for name in names}
_ORDER = list(_PLACES)


class Commands(TyperGroup):
    """A group of commands that are listed panel by panel; those that no panel names come last."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - the base's own, which are many
        super().__init__(**attributes)
        for name, command in self.commands.items():
            if isinstance(command, TyperCommand | TyperGroup):
                command.rich_help_panel = _PLACES.get(name, "More")
                _reflow(command)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Their names in that order."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _PLACES else len(_ORDER))


def _reflow(command: TyperCommand | TyperGroup) -> None:
    """Have the terminal break the lines of a help text, and not the docstring as well."""
    command.help = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    for inner in command.commands.values() if isinstance(command, TyperGroup) else ():
        if isinstance(inner, TyperCommand | TyperGroup):
            _reflow(inner)
