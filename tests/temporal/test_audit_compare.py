"""What an audit makes of one message and the runs of its workflow id, without any server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import typer
from typer.testing import CliRunner

from outbox.model.errors import ConfigurationError
from outbox_temporal.audit.command import AuditOptions, audit, window
from outbox_temporal.audit.compare import Sight, enqueued_at, findings, questions, unaccounted
from outbox_temporal.audit.executions import started_between
from outbox_temporal.audit.findings import AuditReport, Difference, Kind
from outbox_temporal.audit.records import Entry, Run, Scope
from outbox_temporal.sink.redelivery import quoted

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINE, OTHERS = uuid4(), uuid4()
SCOPE = Scope(NOW - timedelta(days=2), NOW - timedelta(seconds=10), NOW, NOW - timedelta(days=30), {"here": 86_400})


def entry(**more: object) -> Entry:
    """A start that was delivered an hour ago as run a."""
    at = NOW - timedelta(hours=1)
    basic = Entry(MINE, "delivered", at, at, "topic", "start_workflow", "Order", "order-1", "a", "here", "orders")
    return basic._replace(**more)  # type: ignore[arg-type]


def run(run_id: str, message_id: UUID | None = MINE, *, minute: int = 0, **more: object) -> Run:
    """A run of order-1 that began so many minutes after the delivery."""
    began = NOW - timedelta(minutes=60 - minute)
    basic = Run("here", "order-1", run_id, "Order", "orders", message_id, began)
    return basic._replace(**more)  # type: ignore[arg-type]


def judged(message: Entry, runs: list[Run], answers: dict[str, Run | None] | None = None) -> list[Difference]:
    """The verdict; every question must be foreseen in `answers`, and no answer be left over."""
    sight, answers = Sight(message), dict(answers or {})
    for each in runs:
        sight.see(each)
    while asked := questions(sight):
        for run_id in asked:
            sight.learn(run_id, answers.pop(run_id))
    assert not answers
    return list(findings(sight, SCOPE))


def kinds(*arguments: object) -> list[Kind]:
    return [finding.kind for finding in judged(*arguments)]  # type: ignore[arg-type]


YESTERDAY = NOW - timedelta(hours=25)
CONTINUED = [run("a", continued=True), run("b", minute=1, continued=True), run("c", minute=2)]


def test_a_listed_run_with_our_memo_settles_it_without_a_question() -> None:
    assert judged(entry(), [run("a")]) == []


def test_a_workflow_that_the_list_does_not_show_yet_is_looked_up() -> None:
    assert judged(entry(), [], {"a": run("a", first_run_id="a")}) == []


def test_runs_that_continue_one_another_are_one_chain_without_a_question() -> None:
    assert judged(entry(), CONTINUED) == []
    assert judged(entry(), CONTINUED[:2]) == []  # the list does not show the last one yet


def test_runs_of_retry_cron_or_reset_are_one_chain_if_the_first_and_the_last_begin_alike() -> None:
    runs = [run("a"), run("b", minute=1), run("c", minute=2)]
    chain = {each.run_id: each._replace(first_run_id="a") for each in (runs[0], runs[2])}
    assert judged(entry(), runs, chain) == []


def test_two_chains_of_one_message_are_reported() -> None:
    [finding] = judged(
        entry(), [run("a"), run("b", minute=5)], {"a": run("a", first_run_id="a"), "b": run("b", first_run_id="b")}
    )
    assert (finding.kind, finding.run_id) == (Kind.TWICE, "b")
    assert "the runs a and b" in finding.what


def test_a_run_that_is_gone_within_the_retention_is_missing_and_forgotten_after_it() -> None:
    assert kinds(entry(), [], {"a": None}) == [Kind.MISSING]
    assert kinds(entry(tried_at=YESTERDAY), [], {"a": None}) == [Kind.FORGOTTEN]
    assert kinds(entry(status="duplicate"), [], {"a": None}) == [Kind.FORGOTTEN]  # it may have ended long before


def test_a_chain_that_outlived_its_first_runs_record_is_there() -> None:
    last = run("z", minute=9, first_run_id="a")
    assert kinds(entry(tried_at=YESTERDAY), [last], {"a": None, "z": last}) == []
    assert kinds(entry(), [last], {"a": None, "z": last}) == []


def test_another_run_in_the_recorded_ones_place_is_reported_with_its_starter() -> None:
    again = run("z", first_run_id="z")
    assert kinds(entry(), [again], {"a": None, "z": again}) == [Kind.REPLACED]
    [finding] = judged(entry(), [run("z", OTHERS)], {"a": None})
    assert finding.kind is Kind.REPLACED
    assert f"by message {OTHERS}" in finding.what
    [finding] = judged(entry(), [run("z", None)], {"a": None})
    assert "without a message" in finding.what


@pytest.mark.parametrize(
    ("field", "kind"), [({"workflow": "Refund"}, Kind.WRONG_TYPE), ({"task_queue": "rest"}, Kind.WRONG_QUEUE)]
)
def test_a_deviation_counts_unless_the_run_is_a_later_one_of_its_chain(field: dict[str, str], kind: Kind) -> None:
    other = run("a", **field)
    assert kinds(entry(), [other], {"a": other._replace(first_run_id="a")}) == [kind]
    assert kinds(entry(), [other], {"a": other._replace(first_run_id="earlier")}) == []
    assert kinds(entry(workflow=None, task_queue=None), [other]) == []  # what is not known cannot be wrong


def test_a_duplicate_is_shared_with_a_message_or_taken_by_a_start_without_one() -> None:
    assert kinds(entry(status="duplicate"), [run("a", OTHERS)]) == [Kind.SHARED]
    assert kinds(entry(status="duplicate"), [run("a", None)]) == [Kind.TAKEN]
    assert kinds(entry(), [run("a", None)]) == [Kind.SHARED]  # joined, by use_existing
    assert kinds(entry(operation="signal_with_start_workflow"), [run("a", None)]) == []


def test_a_delivery_without_a_run_id_takes_the_run_that_is_there() -> None:
    assert kinds(entry(run_id=None), [run("z")]) == []
    assert kinds(entry(run_id=None), [], {"": run("z", first_run_id="z")}) == []
    assert kinds(entry(run_id=None), [], {"": None}) == [Kind.MISSING]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("dead", Kind.DEAD),
        ("unsettled", Kind.UNSETTLED),
        ("cancelled", Kind.CANCELLED),
        ("discarded", Kind.CANCELLED),
    ],
)
def test_what_was_not_delivered_must_have_no_workflow_of_its_own(status: str, kind: Kind) -> None:
    message = entry(status=status, run_id=None)
    assert kinds(message, [run("z")]) == [kind]
    assert kinds(message, [run("z", OTHERS)]) == []
    assert kinds(message, []) == []
    assert kinds(message, [run("z", minute=60)]) == []  # just begun: it was requeued or delivered meanwhile


def test_a_run_is_accounted_for_by_a_message_that_is_looked_at_for_its_own_sake() -> None:
    assert unaccounted(run("a"), [entry()], SCOPE) == []
    old = entry(at=NOW - timedelta(days=3))
    assert unaccounted(run("a"), [old], SCOPE) == [old]  # its turn comes with the run
    routed = entry(status="dead", operation=None, workflow_id=None, run_id=None)
    assert unaccounted(run("a"), [routed], SCOPE) == [routed._replace(workflow_id="order-1")]


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([], Kind.GHOST),
        ([entry(operation="signal_workflow")], Kind.ORPHAN),
        ([entry(workflow_id="order-2")], Kind.TWICE),
        ([entry(namespace="there")], Kind.TWICE),
    ],
)
def test_a_run_is_suspected_that_no_message_accounts_for(entries: list[Entry], kind: Kind) -> None:
    verdict = unaccounted(run("z"), entries, SCOPE)
    assert isinstance(verdict, Difference)
    assert verdict.kind is kind


def test_a_message_id_of_the_database_contains_its_time() -> None:
    assert enqueued_at(UUID("019aa5c0-0000-7000-8000-000000000000")) == datetime.fromtimestamp(
        0x019AA5C00000 / 1000, UTC
    )
    assert enqueued_at(uuid4()) is None


def test_times_are_ages_or_moments_and_end_where_messages_are_too_young() -> None:
    wish = AuditOptions("90m", "0s", 10.0, (), (), (), None, 5.0, 4)
    assert window(wish, NOW) == (NOW - timedelta(minutes=90), NOW - timedelta(seconds=10))
    wish = replace(wish, since="2026-11-20", until="2026-11-21T09:00+02:00")
    assert window(wish, NOW) == (NOW - timedelta(hours=36), NOW - timedelta(hours=5))
    with pytest.raises(ConfigurationError, match="'tomorrow' is no time: write an age such as 90m"):
        window(replace(wish, since="tomorrow"), NOW)


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (("--settle", "soon"), {}, "'soon' is no duration"),
        ((), {"OUTBOX_HISTORY": "false"}, "OUTBOX_HISTORY is false"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_server_is_asked(
    arguments: tuple[str, ...], more: dict[str, str], says: str
) -> None:
    app = typer.Typer()
    app.command()(audit)
    done = CliRunner().invoke(app, arguments, env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"} | more)
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception).startswith(says)


def test_queries_quote_what_people_call_their_workflows() -> None:
    assert quoted("it's a \\") == r"'it\'s a \\'"
    query = started_between(NOW, NOW, ["A", "B"], ["x-"])
    assert query.startswith("StartTime >= '2026-11-21T12:00:00.000000Z' AND StartTime < ")
    assert query.endswith(" AND (WorkflowType = 'A' OR WorkflowType = 'B' OR WorkflowId STARTS_WITH 'x-')")


def test_a_report_counts_all_and_keeps_the_first_of_each_kind_once() -> None:
    report = AuditReport(2)
    for n in (1, 1, 2, 3):
        report.add(Difference(Kind.DEAD, None, "here", f"order-{n}", None, ""))
    report.add(Difference(Kind.SHARED, None, "here", "order-1", None, ""))
    assert report.counts == {Kind.DEAD: 3, Kind.SHARED: 1}
    assert report.faults == 3
    assert [finding.workflow_id for finding in report.shown(Kind.DEAD)] == ["order-1", "order-2"]
