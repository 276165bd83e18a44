"""The policy of approvals, without Temporal: who decides now, until when, and who is refused why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_workflows.approval.state_machine import Case, Refused, faults, letters, next_reminder
from outbox_workflows.approval.types import DAY_S, ApprovalCommand, ApprovalStep, EscalatingRequest, SimpleRequest, Verb

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
REQUEST = EscalatingRequest(
    tenant_id="2f1c6a52-8f0e-4c53-9f3f-0d3c5a1f0b77",
    approval_id="7",
    subject="A new laptop",
    requested_by="rita",
    approvers=["alice", "bob", "carol"],
)


def opened(**chosen: object) -> Case:
    case = Case(replace(REQUEST, **chosen), NOW)  # type: ignore[arg-type]
    case.open()
    return case


def command(actor: str, command_id: str = "c1", to: str = "") -> ApprovalCommand:
    return ApprovalCommand(command_id, actor, to=to)


HALF = "\ud83d"
"""Half of a character, as a producer's `slice` leaves it."""


@pytest.mark.parametrize("bad", [HALF, "\0"])
def test_a_text_that_cannot_be_stored_is_replaced(bad: str) -> None:
    case = opened()
    refused = case.hear("approve", ApprovalCommand("c0" + bad, "mallory" + bad), NOW)
    taken = case.take("approve", ApprovalCommand("c1", "alice", comment="fine " + bad), NOW)
    for step in (refused, taken):
        assert step is not None
        written = repr((step.actor, step.detail, step.standing)).encode()  # fails for half a character
        assert b"\\x00" not in written
    assert taken is not None
    assert taken.standing.state == "approved"
    [fault] = faults(replace(REQUEST, subject="A laptop" + bad))
    assert "cannot be stored" in fault


def test_unanswered_it_passes_through_the_chain_and_expires() -> None:
    case = opened()
    seen = []
    while case.due is not None:
        now = case.due
        step = case.pass_time(now)
        assert step is not None
        seen.append(((now - NOW) / DAY, step.action, step.standing.approver, step.standing.reminders))
    assert seen == [
        (1, "reminded", "alice", 1),
        (2, "reminded", "alice", 2),
        (3, "escalated", "bob", 0),
        (4, "reminded", "bob", 1),
        (5, "reminded", "bob", 2),
        (6, "escalated", "carol", 0),
        (7, "reminded", "carol", 1),
        (8, "reminded", "carol", 2),
        (9, "expired", "carol", 2),
    ]


@pytest.mark.parametrize(
    ("late", "due"),
    [
        (timedelta(), NOW + 2 * DAY),
        (HOUR, NOW + 2 * DAY),
        (5 * DAY + HOUR, NOW + 7 * DAY),
        (9 * DAY, None),
    ],
)
def test_reminders_keep_their_rhythm_and_do_not_make_up_for_missed_ones(late: timedelta, due: datetime | None) -> None:
    last = NOW + DAY
    assert next_reminder(last, last + late, DAY, NOW + 10 * DAY) == due


def test_approver_who_is_asked_late_has_the_whole_time() -> None:
    case = opened()
    step = case.pass_time(NOW + 30 * DAY)
    assert step is not None
    assert (step.action, step.standing.approver, step.standing.deadline) == ("escalated", "bob", NOW + 33 * DAY)


def test_nothing_happens_before_it_is_due() -> None:
    case = opened()
    assert case.pass_time(NOW + DAY - timedelta(microseconds=1)) is None
    assert case.standing.revision == 1


def test_without_a_rhythm_there_are_no_reminders() -> None:
    assert opened(remind_every_s=0).due == NOW + 3 * DAY


@pytest.mark.parametrize(
    ("verb", "sent", "code", "reason"),
    [
        (
            "approve",
            command("bob"),
            "NotYourTurn",
            "bob is not asked yet: it is the turn of alice, until 2026-02-03T12",
        ),
        ("reject", command("mallory"), "NotYourTurn", "mallory is not asked: it is the turn of alice"),
        ("approve", command("rita"), "NotYourTurn", "rita is not asked"),
        ("cancel", command("alice"), "NotTheRequester", "alice did not ask: only rita may cancel"),
        ("delegate", command("alice"), "InvalidDelegate", "names no delegate"),
        ("delegate", command("alice", to="rita"), "InvalidDelegate", "rita asked for this approval"),
        ("delegate", command("alice", to="alice"), "InvalidDelegate", "alice may decide already"),
        ("delegate", command("bob", to="dave"), "NotYourTurn", "bob is not asked yet"),
        ("approve", command("alice", command_id=""), "InvalidCommand", "no command_id"),
        ("approve", command(""), "InvalidCommand", "no actor"),
    ],
)
def test_a_refusal_has_a_code_and_a_reason_and_changes_nothing(
    verb: Verb, sent: ApprovalCommand, code: str, reason: str
) -> None:
    case = opened()
    before = case.earlier
    with pytest.raises(Refused, match=reason) as caught:
        case.check(verb, sent)
    assert caught.value.code == code
    with pytest.raises(Refused):
        case.take(verb, sent, NOW)
    assert case.earlier == before


def test_the_first_valid_decision_wins_and_the_second_gets_it_as_an_answer() -> None:
    case = opened()
    case.take("approve", command("alice"), NOW)
    with pytest.raises(Refused, match=r"already approved by alice at 2026-01-31T12:00:00") as caught:
        case.take("reject", command("alice", "c2"), NOW)
    assert caught.value.code == "AlreadyDecided"


def test_after_the_escalation_the_silent_may_not_decide_any_more() -> None:
    case = opened()
    case.take("delegate", command("alice", to="dave"), NOW)
    case.pass_time(NOW + 3 * DAY)
    for late in ("alice", "dave"):
        with pytest.raises(Refused, match=f"{late}.*: it is the turn of bob, until"):
            case.take("approve", command(late, late), NOW)
    with pytest.raises(Refused, match="the time of alice is over"):
        case.check("reject", command("alice", "c9"))


def test_a_delegate_decides_beside_the_approver_until_the_old_deadline() -> None:
    case = opened()
    deadline = case.standing.deadline
    case.take("delegate", command("alice", to="dave"), NOW + HOUR)
    assert case.standing.deadline == deadline
    for who in ("alice", "dave"):
        case.check("approve", command(who, who))


def test_a_repeated_command_does_nothing_even_in_another_run() -> None:
    case = opened()
    assert case.take("delegate", command("alice", to="dave"), NOW) is not None
    assert case.hear("approve", command("bob", "c2"), NOW) is not None
    later = Case(replace(REQUEST, earlier=case.earlier), NOW + DAY)
    assert later.take("delegate", command("alice", to="dave"), NOW) is None
    assert later.hear("approve", command("bob", "c2"), NOW) is None
    assert later.earlier == case.earlier


def test_another_command_under_a_known_id_is_refused() -> None:
    case = opened()
    case.take("delegate", command("alice", to="dave"), NOW)
    with pytest.raises(Refused, match="c1 was delegate by alice: give each command an id of its own"):
        case.check("approve", command("dave"))


def test_another_run_goes_on_with_the_same_points_in_time() -> None:
    case = opened()
    case.pass_time(NOW + DAY)
    later = Case(replace(REQUEST, earlier=case.earlier), NOW + DAY + HOUR)
    assert (later.due, later.standing) == (NOW + 2 * DAY, case.standing)


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ({"tenant_id": "acme"}, "tenant_id is 'acme': give the tenant's UUID"),
        ({"subject": ""}, "subject is missing"),
        ({"approvers": []}, "no approver is named"),
        ({"approvers": ["alice", ""]}, "no approver is named"),
        ({"approvers": ["alice", "rita"]}, "rita is asked about a request of their own"),
        ({"answer_within_s": 0}, "answer_within_s is 0: give seconds from"),
        ({"remind_every_s": float("nan")}, "remind_every_s is nan"),
        ({"mail_within_s": 1e12}, "mail_within_s is 1e\\+12"),
    ],
)
def test_faults_of_a_request_are_reported_in_words(chosen: dict[str, object], fault: str) -> None:
    [found] = faults(replace(REQUEST, **chosen))  # type: ignore[arg-type]
    assert found.startswith(fault.replace("\\", ""))
    with pytest.raises(Refused, match=fault):
        opened(**chosen).check("approve", command("alice"))


def test_an_empty_request_is_reported_everything_that_it_lacks() -> None:
    assert len(faults(SimpleRequest())) == 5


def test_mails_go_to_the_approvers_and_at_the_end_to_the_requester() -> None:
    case = Case(REQUEST, NOW)
    recipients: list[tuple[str, list[str]]] = []

    def note(step: ApprovalStep | None) -> None:
        assert step is not None
        recipients.append((step.action, [letter.to for letter in letters(step)]))

    note(case.open())
    note(case.take("delegate", command("alice", to="dave"), NOW))
    note(case.pass_time(NOW + DAY))
    note(case.hear("approve", command("mallory", "c2"), NOW))
    note(case.pass_time(NOW + 3 * DAY))
    note(case.take("cancel", command("rita", "c3"), NOW))
    assert recipients == [
        ("requested", ["alice"]),
        ("delegated", ["dave"]),
        ("reminded", ["alice", "dave"]),
        ("refused", []),
        ("escalated", ["bob"]),
        ("cancelled", ["bob"]),
    ]


PEOPLE = st.sampled_from(["alice", "bob", "carol", "dave", "rita", ""])
COMMANDS = st.tuples(
    st.sampled_from(["approve", "reject", "cancel", "delegate"]),
    st.builds(ApprovalCommand, st.sampled_from(["c1", "c2", "c3", "c4", ""]), PEOPLE, st.just(""), PEOPLE),
)
PASSING = st.floats(0, 4 * DAY_S).map(lambda seconds: timedelta(seconds=seconds))


@given(st.lists(st.tuples(PASSING, COMMANDS), max_size=25), st.integers(0, 25))
def test_after_any_commands_there_is_one_end_and_nothing_after_it(
    course: list[tuple[timedelta, tuple[Verb, ApprovalCommand]]], continued_at: int
) -> None:
    case, now, steps = Case(REQUEST, NOW), NOW, []
    steps.append(case.open())
    for place, (passing, (verb, sent)) in enumerate(course):
        if place == continued_at:
            case = Case(replace(REQUEST, earlier=case.earlier), now)
        now += passing
        made = [case.pass_time(now), case.hear(verb, sent, now)]
        steps += [step for step in made if step is not None]
    assert [step.standing.revision for step in steps] == list(range(1, len(steps) + 1))
    ended = [step for step in steps if step.standing.state != "pending"]
    assert len({step.standing.state for step in ended}) <= 1
    assert all(step.action == "refused" for step in ended[1:])
    taken = [step.detail["command_id"] for step in steps if "command_id" in step.detail and step.action != "refused"]
    assert len(taken) == len(set(taken))
