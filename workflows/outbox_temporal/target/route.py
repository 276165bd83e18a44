"""One route: a target with placeholders, and how a message fills them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outbox.model.message import Message
from outbox_temporal.target.target import Record, Target, fault_of_workflow_id
from outbox_temporal.target.templates import Fields, Template, Unfilled


@dataclass(frozen=True, slots=True)
class Route:
    """One `[[route]]`: its target, and what of it is filled in from each message."""

    topic: str
    """Exact, or ending in `*`, which matches the rest."""
    line: int
    target: Target | Record
    """The target; where it has placeholders, with these in place."""
    texts: Mapping[str, Template]
    """Fields that are one text with placeholders."""
    trees: Mapping[str, object]
    """Memo and search attributes with templates among their values."""
    own: frozenset[str]
    """The fields that stand in the route itself, not in the defaults."""

    def target_of(self, message: Message) -> Target | Record:
        """The target for a message. Raises Unfilled."""
        target = self.target
        if isinstance(target, Record) or (not self.texts and not self.trees):
            return target
        fields = Fields(message)
        filled: dict[str, Any] = {}
        name = ""
        try:
            for name, template in self.texts.items():
                filled[name] = template.text(fields)
            for name, tree in self.trees.items():
                filled[name] = _filled(tree, fields)
        except Unfilled as error:
            raise Unfilled(f"{name}: {error}") from None
        if "workflow_id" in filled and (fault := fault_of_workflow_id(filled["workflow_id"])):
            raise Unfilled(f"workflow_id: {fault}")
        return target.model_copy(update=filled)  # everything else in it was validated with the file


def _filled(tree: object, fields: Fields) -> object:
    """A tree of JSON values with its templates filled in."""
    match tree:
        case Template():
            return tree.value(fields)
        case dict():
            return {name: _filled(value, fields) for name, value in tree.items()}
        case list():
            return [_filled(value, fields) for value in tree]
        case _:
            return tree
