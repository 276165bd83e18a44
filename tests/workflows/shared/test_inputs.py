"""What a workflow is given is read field by field; what does not fit is named, and never repeated."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from outbox_workflows.approval.state_machine import faults
from outbox_workflows.approval.types import ApprovalCommand, EscalatingRequest, SimpleRequest
from outbox_workflows.shared.arguments import Misfit, begun, command_id_of, faults_before, read
from outbox_workflows.tenant.types import Change, DeletionOrder, NewTenant, Turned

SECRET = "correct horse"


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (SimpleRequest, [], "one JSON object is expected, not 0 arguments"),
        (SimpleRequest, [{}, {}], "one JSON object is expected, not 2 arguments"),
        (SimpleRequest, [None], "the argument must be an object, not null"),
        (SimpleRequest, ["42"], "the argument must be an object, not a text"),
        (SimpleRequest, [{"approval_id": 7}], "approval_id must be a text, not a number"),
        (SimpleRequest, [{"answer_within_s": "1"}], "answer_within_s must be a number, not a text"),
        (SimpleRequest, [{"answer_within_s": True}], "answer_within_s must be a number, not true or false"),
        (SimpleRequest, [{"subject": None, "approver": []}], "subject must be a text, not null; approver must be a text, not a list"),
        (EscalatingRequest, [{"approvers": "alice"}], "approvers must be a list, not a text"),
        (EscalatingRequest, [{"approvers": ["a", 1]}], "approvers[1] must be a text, not a number"),
        (EscalatingRequest, [{"earlier": {"standing": {"state": "x"}}}], "earlier.standing.state must be one of 'pending', "),
        (Change, [{"preferences": {"theme": 1}}], "preferences.theme must be a text, not a number"),
        (Change, [{"preferences": 1}], "preferences must be an object, not a number"),
        (NewTenant, [{"admin": {"password_hash": [SECRET]}}], "admin.password_hash must be a text, not a list"),
        (NewTenant, [{"admin": SECRET}], "admin must be an object, not a text"),
        (DeletionOrder, [{"grace_s": "1", "patience": {"step_s": []}}], "patience.step_s must be a number, not a list; grace_s must"),
        (Turned, [{"status": "", "was": ""}], "tenant_id is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_not_repeated(kind: type, given: list[object], says: str) -> None:
    with pytest.raises(Misfit) as caught:
        read(kind, given)
    assert str(caught.value).startswith(says)
    assert SECRET not in str(caught.value)


def test_what_fits_is_read_and_what_is_not_known_is_left_out() -> None:
    given: dict[str, Any] = {"approvers": ["alice"], "answer_within_s": 1, "from_the_future": [1]}
    standing = {"deadline": "2026-01-31T12:00:00+00:00", "delegate": "\ud83d"}
    earlier = {"standing": standing, "next_reminder": None, "heard": {"c1": {"verb": "approve", "actor": "bob"}}}
    found = read(EscalatingRequest, [given | {"earlier": earlier}])
    assert (found.approvers, found.answer_within_s) == (["alice"], 1.0)
    assert found.earlier is not None
    assert found.earlier.standing.deadline == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert found.earlier.heard["c1"].actor == "bob"
    assert found.earlier.standing.delegate == "?", "half a character"
    assert faults_before(found, lambda _: []) == []


@pytest.mark.parametrize("depth", [250, 100_000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    with pytest.raises(Misfit, match="^the argument is nested too deeply$"):
        read(SimpleRequest, [{"from_the_future": deep}])


def test_only_some_of_many_misfits_are_reported() -> None:
    with pytest.raises(Misfit) as caught:
        read(EscalatingRequest, [{"approvers": [1] * 10_000}])
    assert len(caught.value.faults) == 10


def test_an_unreadable_request_is_replaced_by_an_empty_one() -> None:
    assert begun(SimpleRequest, [7], faults) == (SimpleRequest(), ["the argument must be an object, not a number"])
    request = SimpleRequest(subject="x")
    assert begun(SimpleRequest, [{"subject": "x"}], faults) == (request, faults(request))
    wrong: Any = {"approver": 7}
    assert faults_before(replace(request, **wrong), faults) == ["approver must be a text, not a number"]


def test_a_command_is_named_by_its_id_where_it_has_one() -> None:
    assert command_id_of([{"command_id": "c1", "actor": 7}]) == "c1"
    for nameless in ([], ["c1"], [{}], [{"command_id": 5}], [{"command_id": ""}]):
        assert command_id_of(nameless) == "unknown"
    assert read(ApprovalCommand, [{"command_id": "c1"}]) == ApprovalCommand("c1")
