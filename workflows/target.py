"""What a message asks Temporal to do: the JSON of `message.target`, validated."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from outbox.sink import Rejected

Operation = Literal[
    "start_workflow", "signal_workflow", "signal_with_start_workflow", "cancel_workflow", "terminate_workflow"
]

_NEEDS: dict[Operation, tuple[str, ...]] = {
    "start_workflow": ("workflow",),
    "signal_workflow": ("signal",),
    "signal_with_start_workflow": ("workflow", "signal"),
    "cancel_workflow": (),
    "terminate_workflow": (),
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RetryPolicy(_Part):
    """Temporal's retry policy of a workflow. Intervals are seconds; what is left out is Temporal's default."""

    initial_interval_s: float | None = Field(None, ge=0)
    backoff_coefficient: float | None = Field(None, ge=1)
    maximum_interval_s: float | None = Field(None, ge=0)
    maximum_attempts: int | None = Field(None, ge=0)
    non_retryable_error_types: list[str] = []


class Target(_Part):
    """One command to Temporal. Durations are seconds; None is the default named in `docs/producing.md`."""

    operation: Operation
    workflow_id: str = Field(min_length=1)
    workflow: str | None = None
    signal: str | None = None
    arguments: Literal["none", "one", "many"] | None = None
    task_queue: str | None = None
    namespace: str | None = None
    run_id: str | None = None
    reason: str | None = None
    id_reuse_policy: Literal["reject_duplicate", "allow_duplicate", "allow_duplicate_failed_only"] = "reject_duplicate"
    id_conflict_policy: Literal["fail", "use_existing", "terminate_existing"] = "fail"
    on_duplicate: Literal["accept", "reject"] = "accept"
    execution_timeout_s: float | None = Field(None, ge=0)
    run_timeout_s: float | None = Field(None, ge=0)
    task_timeout_s: float | None = Field(None, ge=0)
    start_delay_s: float | None = Field(None, ge=0)
    retry_policy: RetryPolicy | None = None
    memo: dict[str, Any] = {}
    search_attributes: dict[str, Any] = {}
    summary: str | None = None
    details: str | None = None

    @model_validator(mode="after")
    def _check_needs(self) -> Target:
        for name in _NEEDS[self.operation]:
            if not getattr(self, name):
                raise ValueError(f"{self.operation} needs {name}")
        return self


@lru_cache(maxsize=256)
def parse(text: str | None) -> Target | Rejected:
    """Read a target, or say why it can never be carried out."""
    if text is None:
        return Rejected("NO_TARGET", "the message names no target: use outbox.start_workflow or another of its kind")
    try:
        return Target.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["target", *map(str, first["loc"])])
        return Rejected("INVALID_TARGET", f"{where}: {first['msg'].removeprefix('Value error, ')}")
