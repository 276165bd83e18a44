"""Routes: which one a topic finds, and what a message makes of it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.model.message import Message
from outbox.model.sink import Rejected
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Record, Target, parse

ID = UUID("018f0000-0000-7000-8000-000000000001")
START = 'workflow = "W"\ntask_queue = "q"\n'


def message(
    topic: str = "t",
    payload: str | None = "{}",
    *,
    key: str | None = None,
    headers: str = "{}",
    target: str | None = None,
) -> Message:
    return Message(ID, 1, topic, key, payload, headers, target, 1, 0, 0, 0.0, 1)


def routes(tmp_path: Path, text: str) -> Routes:
    path = tmp_path / "outbox.toml"
    path.write_text(text, encoding="utf-8")
    return Routes.load(path)


def one(tmp_path: Path, fields: str, *, topic: str = "t") -> Routes:
    """A file with one start."""
    return routes(tmp_path, f'[[route]]\ntopic = "{topic}"\n{START}{fields}')


def target(loaded: Routes, sent: Message) -> Target:
    found = loaded.target_of(sent)
    assert isinstance(found, Target), found
    return found


def reason(loaded: Routes, sent: Message) -> str:
    found = loaded.target_of(sent)
    assert isinstance(found, Rejected), found
    assert found.kind == "UNROUTABLE"
    assert "\n" not in found.detail
    return found.detail


class TestATopic:
    TOPICS = ("a", "a.*", "a.b.*", "a.b.c", "*")

    @pytest.mark.parametrize(
        ("topic", "found"),
        [
            ("a", "a"),
            ("a.b", "a.*"),
            ("a.b.c", "a.b.c"),
            ("a.b.c.d", "a.b.*"),
            ("a.bc", "a.*"),
            ("ab", "*"),
            ("a.", "*"),
            ("A", "*"),
            (".", "*"),
            ("a..b", "a.*"),
        ],
    )
    def test_finds_the_exact_route_then_the_longest_prefix(self, tmp_path: Path, topic: str, found: str) -> None:
        text = "".join(f'[[route]]\ntopic = "{name}"\nworkflow_id = "x"\n{START}' for name in self.TOPICS)
        match = routes(tmp_path, text).match(topic)
        assert match is not None
        assert match.topic == found

    def test_that_no_route_matches_is_unroutable_and_named(self, tmp_path: Path) -> None:
        loaded = one(tmp_path, 'workflow_id = "x"', topic="a.*")
        assert "no route in" in reason(loaded, message("b"))
        assert "'b'" in reason(loaded, message("b"))


words = st.text("ab.", min_size=1, max_size=7)
stems = st.text("ab.", max_size=5).map(lambda text: f"{text}." if text else "")


@given(topic=words, exact=st.sets(words, max_size=4), prefixes=st.sets(stems, max_size=5))
def test_exact_beats_prefix_and_the_longest_prefix_wins(topic: str, exact: set[str], prefixes: set[str]) -> None:
    from outbox_temporal.target.route import Route

    goal = Target(operation="cancel_workflow", workflow_id="x")
    every = [*exact, *(f"{prefix}*" for prefix in prefixes)]
    found = Routes(Path("f"), [Route(name, 1, goal, {}, {}, frozenset()) for name in every]).match(topic)
    longest = max((p for p in prefixes if topic.startswith(p) and len(topic) > len(p)), key=len, default=None)
    expected = topic if topic in exact else None if longest is None else f"{longest}*"
    assert (found and found.topic) == expected


def test_a_message_cannot_ask_to_be_recorded_itself() -> None:
    assert isinstance(parse('{"operation": "record"}'), Rejected)


class TestATemplate:
    @pytest.mark.parametrize(
        ("template", "rendered"),
        [
            ("org-{organization_id}", "org-42"),
            ("{payload.organization_id}", "42"),
            ("{customer.name}/{items.1.sku}", "Ada/B2"),
            ("{key}-{topic}", "k-t"),
            ("{payload.key}", "not the message's"),
            ("{message_id}", str(ID)),
            ("{headers.x-tenant}", "acme"),
            ("{headers.dotted.name}", "d"),
            ("{big}", "123456789012345678901234567890"),
            ("{price}", "1.50"),
            ("{exponent}", "1E2"),
            ("{yes}", "true"),
            ("{name!s}", "Zoë"),
            ("{{literal}}", "{literal}"),
        ],
    )
    def test_is_filled_in_from_the_message_as_it_was_written(
        self, tmp_path: Path, template: str, rendered: str
    ) -> None:
        payload = """{"organization_id": 42, "customer": {"name": "Ada"}, "items": [{}, {"sku": "B2"}], "yes": true,
            "key": "not the message's", "big": 123456789012345678901234567890, "price": 1.50, "exponent": 1E2,
            "name": "Zo\\u00eb"}"""
        headers = '{"x-tenant": "acme", "dotted.name": "d"}'
        loaded = one(tmp_path, f'workflow_id = "{template}"')
        assert target(loaded, message("t", payload, key="k", headers=headers)).workflow_id == rendered

    def test_of_a_payload_that_is_one_value_is_that_value(self, tmp_path: Path) -> None:
        loaded = one(tmp_path, 'workflow_id = "org-{payload}"')
        assert target(loaded, message(payload='"42"')).workflow_id == "org-42"

    @pytest.mark.parametrize(
        ("template", "payload", "says"),
        [
            ("x-{id}", "{}", "{id} is missing in the payload"),
            ("x-{id}", None, "{id} is missing: the message has no payload"),
            ("x-{id}", '{"id": null}', "{id} is null"),
            ("x-{id}", '{"id": {"a": 1}}', "{id} is an object"),
            ("x-{id}", '{"id": [1]}', "{id} is an array"),
            ("x-{id}", '{"id": ""}', "{id} is empty"),
            ("x-{id.a}", '{"id": 1}', "{id.a} is missing"),
            ("x-{id.3}", '{"id": [1]}', "{id.3} is missing"),
            ("x-{id}", "[1]", "{id} is missing"),
            ("x-{key}", "{}", "the message has no key"),
            ("x-{headers.h}", "{}", "{headers.h} is missing in the headers"),
            ("x-{id}", '{"id": "\\ud800"}', "{id} is not valid Unicode"),
            ("x-{id}", '{"id": "a\\u0000b"}', "contains the character NUL"),
            ("x-{id}", '{"id": "%s"}' % ("é" * 500), "is 1002 bytes long, the limit is 1000"),
            ("x-{id}", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ],
    )
    def test_that_cannot_be_filled_in_makes_the_message_unroutable(
        self, tmp_path: Path, template: str, payload: str | None, says: str
    ) -> None:
        loaded = one(tmp_path, f'workflow_id = "{template}"')
        detail = reason(loaded, message(payload=payload))
        assert says in detail
        assert f"route 't' ({loaded.path}:1): workflow_id: " in detail

    def test_placeholders_work_in_every_text(self, tmp_path: Path) -> None:
        text = """
            [defaults]
            namespace = "ns-{tenant}"
            [[route]]
            topic = "t"
            operation = "signal_with_start_workflow"
            workflow = "{kind}Workflow"
            signal = "did_{kind}"
            workflow_id = "{kind}-1"
            task_queue = "queue-{tenant}"
            summary = "{nothing}"
        """
        found = target(routes(tmp_path, text), message(payload='{"kind": "cart", "tenant": "acme", "nothing": ""}'))
        assert (found.workflow, found.signal, found.workflow_id) == ("cartWorkflow", "did_cart", "cart-1")
        assert (found.namespace, found.task_queue, found.summary) == ("ns-acme", "queue-acme", "")

    def test_alone_in_memo_or_search_attribute_keeps_the_values_type(self, tmp_path: Path) -> None:
        fields = """workflow_id = "x"
            [route.memo]
            n = "{n}"
            text = "{n!s}"
            in_text = "no. {n}"
            yes = "{yes}"
            empty = "{empty}"
            fixed = { a = [1, "{n}"], when = 2026-01-02 }
            [route.search_attributes]
            Amount = { type = "Double", value = "{n}" }
            City = "{{Bonn}}"
        """
        found = target(one(tmp_path, fields), message(payload='{"n": 1.50, "yes": false, "empty": ""}'))
        memo = orjson.dumps(found.memo).decode()
        assert memo == (
            '{"n":1.50,"text":"1.50","in_text":"no. 1.50","yes":false,"empty":"",'
            '"fixed":{"a":[1,1.50],"when":"2026-01-02"}}'
        )
        attributes = orjson.dumps(found.search_attributes).decode()
        assert attributes == '{"Amount":{"type":"Double","value":1.50},"City":"{Bonn}"}'

    def test_without_placeholders_never_reads_the_payload(self, tmp_path: Path) -> None:
        loaded = one(tmp_path, 'workflow_id = "x"')
        assert target(loaded, message(payload="not JSON")).workflow_id == "x"


def test_a_route_becomes_a_whole_target(tmp_path: Path) -> None:
    text = """
        [defaults]
        task_queue = "general"
        id_reuse_policy = "allow_duplicate"
        run_timeout = 60

        [[route]]
        topic = "organization.created"
        workflow = "OrganizationBootstrap"
        workflow_id = "org-bootstrap-{organization_id}"
        task_queue = "organizations"
        namespace = "tenants"
        id_conflict_policy = "use_existing"
        on_duplicate = "reject"
        execution_timeout = "2d"
        task_timeout = 7.5
        start_delay = "1h30m"
        memo = { plan = "gold" }
        search_attributes = { City = "Bonn" }
        summary = "s"
        retry_policy = { initial_interval = "500ms", maximum_attempts = 3, non_retryable_error_types = ["Fatal"] }

        [[route]]
        topic = "*"
        operation = "cancel_workflow"
        workflow_id = "x"
    """
    loaded = routes(tmp_path, text)
    written = target(loaded, message("organization.created", '{"organization_id": 42}')).model_dump(
        exclude_defaults=True
    )
    assert written == {
        "operation": "start_workflow",
        "workflow": "OrganizationBootstrap",
        "workflow_id": "org-bootstrap-42",
        "task_queue": "organizations",
        "namespace": "tenants",
        "id_reuse_policy": "allow_duplicate",
        "id_conflict_policy": "use_existing",
        "on_duplicate": "reject",
        "execution_timeout_s": 172_800,
        "run_timeout_s": 60,
        "task_timeout_s": 7.5,
        "start_delay_s": 5400,
        "memo": {"plan": "gold"},
        "search_attributes": {"City": "Bonn"},
        "summary": "s",
        "retry_policy": {
            "initial_interval_s": 0.5,
            "maximum_attempts": 3,
            "non_retryable_error_types": ["Fatal"],
        },
    }
    assert target(loaded, message("anything")).task_queue == "general"


def test_a_route_that_records_needs_no_workflow_and_no_id_and_takes_no_defaults(tmp_path: Path) -> None:
    text = '[defaults]\ntask_queue = "{nothing}"\n[[route]]\ntopic = "a.*"\noperation = "record"\n'
    loaded = routes(tmp_path, text)
    assert loaded.target_of(message("a.b", None)) == Record()
    assert loaded.without_task_queue() == []


def test_a_signal_with_start_gives_the_payload_to_both_unless_reported_otherwise(tmp_path: Path) -> None:
    fields = 'operation = "signal_with_start_workflow"\nsignal = "s"\nworkflow_id = "x"\n'
    found = target(one(tmp_path, fields), message())
    assert (found.arguments, found.signal_arguments) == ("one", "one")
    found = target(one(tmp_path, fields + 'arguments = "none"\n'), message())
    assert (found.arguments, found.signal_arguments) == ("none", "one")
