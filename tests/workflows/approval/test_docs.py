"""The chapter on approvals and the code name the same things."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from outbox_workflows.approval import state_machine as case
from outbox_workflows.approval.types import (
    Action,
    ApprovalCommand,
    EscalatingRequest,
    SimpleRequest,
    Standing,
    State,
    Verb,
)

CHAPTER = (Path(__file__).parents[3] / "docs" / "workflows.md").read_text(encoding="utf-8").partition("## Approval")[2]
FIELDS = {
    field.name for kind in (SimpleRequest, EscalatingRequest, Standing, ApprovalCommand) for field in fields(kind)
}
CODES = set(re.findall(r'Refused\(\s*"(\w+)"', inspect.getsource(case)))


@pytest.mark.parametrize(
    "name", sorted((FIELDS - {"earlier"}) | CODES | {*get_args(Action), *get_args(State), *get_args(Verb)})
)
def test_the_chapter_names(name: str) -> None:
    assert f"`{name}`" in CHAPTER or f'"{name}"' in CHAPTER
