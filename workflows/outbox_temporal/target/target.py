"""What a message asks Temporal to do: the JSON of `message.target`, validated."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from outbox.model.sink import Rejected
from outbox_temporal.target.byte_cache import ByteCache
from outbox_temporal.target.json_text import MOST_PARTS, members

Operation = Literal[
    "start_workflow", "signal_workflow", "signal_with_start_workflow", "cancel_workflow", "terminate_workflow"
]

NEEDS: dict[Operation, tuple[str, ...]] = {
    "start_workflow": ("workflow",),
    "signal_workflow": ("signal",),
    "signal_with_start_workflow": ("workflow", "signal"),
    "cancel_workflow": (),
    "terminate_workflow": (),
}
"""What an operation needs beside the workflow id."""
NO_TARGET = Rejected(
    "NO_TARGET",
    "the message names no target, and there are no routes: use outbox.start_workflow or another of its kind, "
    "or route its topic in outbox.toml",
)
SYSTEM_NAMESPACE = "temporal-system"
"""The namespace in which Temporal runs its own workflows."""
MEMO_KEY = "outbox_message_id"
"""The memo field that holds the message id; unlike the request id it survives continue-as-new."""
_NO_TEXTS: dict[str, Any] = {"memo": {}, "search_attributes": {}, "summary": None, "details": None}
_LIKE: ByteCache[bytes, Target] = ByteCache()
"""Validated targets by what they say beside their workflow id."""
_TARGET_BYTES, _TEXT_FACTOR = 4096, 16
"""What a target has in memory: so much, and for each byte of its JSON so many. Lists of short texts have the most."""
_LONGEST_ID = 1000
"""Bytes; Temporal's own limit (`limit.maxIDLength`), and the producer functions'."""


def _sendable(workflow_id: str) -> str:
    if len(workflow_id.encode()) > _LONGEST_ID:
        raise ValueError(f"is {len(workflow_id.encode())} bytes long, the limit is {_LONGEST_ID}")
    if "\0" in workflow_id:  # Temporal would take it, and PostgreSQL could not write it down
        raise ValueError("contains the character NUL")
    return workflow_id


def _without_ours(memo: dict[str, Any]) -> dict[str, Any]:
    if MEMO_KEY in memo:  # by this field a repeat finds out what an earlier delivery has started
        raise ValueError(f"{MEMO_KEY} is the outbox's own: choose another name")
    return memo


WorkflowId = Annotated[str, Field(min_length=1), AfterValidator(_sendable)]
OptionalName = Annotated[str | None, AfterValidator(lambda text: text or None)]
"""An empty one is none, for Temporal too."""
Seconds = Annotated[float, Field(ge=0, le=3_155_760_000, allow_inf_nan=False)]
"""At most a hundred years: what the server counts durations in ends at 292."""


_TREES = ("memo", "search_attributes")
_TEMPORALS_INITIAL_S = 1.0
"""The initial interval of a retry policy that names none."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RetryPolicy(_Part):
    """Temporal's retry policy of a workflow. Intervals are seconds; what is left out is Temporal's default."""

    initial_interval_s: Seconds | None = None
    backoff_coefficient: float | None = Field(None, ge=1, allow_inf_nan=False)
    maximum_interval_s: Seconds | None = None
    maximum_attempts: int | None = Field(None, ge=0, le=2**31 - 1)
    non_retryable_error_types: Annotated[list[str], Field(max_length=MOST_PARTS)] = []

    @model_validator(mode="after")
    def _check_intervals(self) -> RetryPolicy:
        initial_s = self.initial_interval_s or _TEMPORALS_INITIAL_S
        if self.maximum_attempts != 1 and self.maximum_interval_s and self.maximum_interval_s < initial_s:
            raise ValueError(f"the maximum interval is shorter than the initial one, which is {initial_s:g} s")
        return self


class Target(_Part):
    """One command to Temporal. Durations are seconds; None is the default named in `docs/producing.md`."""

    operation: Operation
    workflow_id: WorkflowId
    workflow: str | None = None
    signal: str | None = None
    arguments: Literal["none", "one", "many"] | None = None
    signal_arguments: Literal["none", "one", "many"] | None = None
    task_queue: OptionalName = None
    namespace: OptionalName = None
    run_id: OptionalName = None
    reason: str | None = None
    id_reuse_policy: Literal["reject_duplicate", "allow_duplicate", "allow_duplicate_failed_only"] = "reject_duplicate"
    id_conflict_policy: Literal["fail", "use_existing", "terminate_existing"] = "fail"
    on_duplicate: Literal["accept", "reject"] = "accept"
    execution_timeout_s: Seconds | None = None
    run_timeout_s: Seconds | None = None
    task_timeout_s: Seconds | None = None
    start_delay_s: Seconds | None = None
    retry_policy: RetryPolicy | None = None
    memo: Annotated[dict[str, Any], AfterValidator(_without_ours)] = {}
    search_attributes: dict[str, Any] = {}
    summary: str | None = None
    details: str | None = None

    @model_validator(mode="after")
    def _check_needs(self) -> Target:
        given = {name for name in NEEDS[self.operation] if getattr(self, name)}
        if missing := lacking(self.operation, given):
            raise ValueError(f"{self.operation} needs {' and '.join(missing)}")
        chosen = self.id_conflict_policy if "id_conflict_policy" in self.model_fields_set else None
        if self.operation == "signal_with_start_workflow" and chosen == "fail":
            raise ValueError("signal_with_start_workflow takes no id_conflict_policy fail: it signals what runs")
        if self.id_conflict_policy == "terminate_existing" and self.id_reuse_policy == "reject_duplicate":
            raise ValueError(
                "terminate_existing contradicts id_reuse_policy reject_duplicate: choose another one of it"
            )
        return self


_WORKFLOW_ID: TypeAdapter[str] = TypeAdapter(WorkflowId)


def lacking(operation: Operation, given: Container[str]) -> list[str]:
    """The fields that an operation needs and that are not given."""
    return [name for name in NEEDS[operation] if name not in given]


def fault_of_workflow_id(workflow_id: str) -> str | None:
    """Why Target would refuse this workflow id; None if it would not."""
    try:
        _WORKFLOW_ID.validate_python(workflow_id)
    except ValidationError as error:
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return None


@dataclass(frozen=True, slots=True)
class Record:
    """Nothing is to be carried out: the message is delivered when its line is in the history.

    Only a route says so. A message with a target of its own is for Temporal.
    """

    operation: ClassVar[Literal["record"]] = "record"


class Command(NamedTuple):
    """A target, and the workflow id that it has for one message: what else a target says, many messages share."""

    target: Target
    workflow_id: str

    def without_texts(self) -> Command:
        """The same without what the request holds already: while that is in flight, it need not be kept twice."""
        return Command(self.target.model_copy(update=_NO_TEXTS), self.workflow_id)


def parse(text: str) -> Command | Rejected:
    """Read a target, or say why it can never be carried out.

    Messages of a kind differ in their workflow ids. What else they say is validated once. Values of the memo and of
    search attributes are cut out before: they are not read at all.
    """
    if '"memo"' in text or '"search_attributes"' in text or "\\u" in text:  # a name may be written with an escape
        return _parsed_with_trees(text)
    return _parsed(text)


def _parsed(text: str) -> Command | Rejected:
    try:
        fields = orjson.loads(text)
        workflow_id = _sendable(fields.pop("workflow_id"))
        others = orjson.dumps(fields)
        target = (_LIKE.get(others) or _validated_like(others)) if workflow_id else None
    except (AttributeError, KeyError, TypeError, ValueError):  # no target at all, and pydantic says why
        workflow_id, target = "", None
    if target is not None:
        return Command(target, workflow_id)
    validated = _validated(text)
    return validated if isinstance(validated, Rejected) else Command(validated, validated.workflow_id)


def _parsed_with_trees(text: str) -> Command | Rejected:
    """Read a target that has values of the user's own."""
    where = "target"
    trees: dict[str, dict[str, Any]] = {}
    try:
        fields = members(text)
        for where in _TREES:
            if where in fields:
                trees[where] = {
                    name: _value(part, where) for name, part in members(fields.pop(where), MOST_PARTS).items()
                }
        where = "memo"
        _without_ours(trees.get(where, {}))
    except ValueError as error:
        return Rejected("INVALID_TARGET", f"{where if where == 'target' else 'target.' + where}: {error}")
    command = _parsed("{" + ",".join(f"{orjson.dumps(name).decode()}:{part}" for name, part in fields.items()) + "}")
    if isinstance(command, Rejected) or not trees:
        return command
    return Command(command.target.model_copy(update=trees), command.workflow_id)


def _value(text: str, tree: str) -> object:
    """A value's text, to be written as it is; and of a search attribute that names its type the parts."""
    if tree == "search_attributes" and text.startswith("{"):
        parts = members(text)
        if parts.keys() == {"type", "value"}:
            return {"type": json.loads(parts["type"]), "value": orjson.Fragment(parts["value"])}
    return orjson.Fragment(text)


def _validated_like(others: bytes) -> Target | None:
    """The target with these fields, if they are in order. Its workflow id is not checked."""
    target = _validated(orjson.dumps({"workflow_id": "-", **orjson.loads(others)}))
    if isinstance(target, Rejected):
        return None
    # A copy of the key: orjson leaves up to eight times its length behind it.
    _LIKE.put(memoryview(others).tobytes(), target, _TARGET_BYTES + _TEXT_FACTOR * len(others))
    return target


def _validated(text: str | bytes) -> Target | Rejected:
    try:
        return Target.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["target", *map(str, first["loc"])])
        return Rejected("INVALID_TARGET", f"{where}: {first['msg'].removeprefix('Value error, ')}")
