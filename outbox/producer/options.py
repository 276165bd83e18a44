"""The named arguments of the calls, for type checkers. Their meaning is in docs/producing.md; None is a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Required, TypedDict
from uuid import UUID


class MessageOptions(TypedDict, total=False):
    """What every message can be given."""

    key: str | None
    headers: Mapping[str, object] | None
    message_id: UUID | None
    dedup_key: str | None
    available_at: datetime | None
    priority: int | None
    tenant: str | None
    commit_order: bool | None
    dedup_window: timedelta | None
    expires_at: datetime | None
    on_expiry: str | None


class EnqueueOptions(MessageOptions, total=False):
    """What `enqueue` takes by name."""

    target: Mapping[str, object] | None


class NewMessage(EnqueueOptions, total=False):
    """One message of `enqueue_many`."""

    topic: Required[str]
    payload: object


class WorkflowOptions(MessageOptions, total=False):
    """What every call about a workflow takes by name."""

    namespace: str | None
    topic: str | None


class SignalOptions(WorkflowOptions, total=False):
    """What `signal_workflow` takes by name."""

    args: Sequence[object] | None
    run_id: str | None


class EndOptions(WorkflowOptions, total=False):
    """What `cancel_workflow` and `terminate_workflow` take by name."""

    reason: str | None
    run_id: str | None


class NewRunOptions(WorkflowOptions, total=False):
    """What both functions that start a workflow take by name."""

    args: Sequence[object] | None
    task_queue: str | None
    id_reuse_policy: str | None
    id_conflict_policy: str | None
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    start_delay: timedelta | None
    retry_policy: Mapping[str, object] | None
    memo: Mapping[str, object] | None
    search_attributes: Mapping[str, object] | None


class StartOptions(NewRunOptions, total=False):
    """What `start_workflow` takes by name."""

    on_duplicate: str | None


class SignalWithStartOptions(NewRunOptions, total=False):
    """What `signal_with_start_workflow` takes by name: `args` are the workflow's, `signal_args` the signal's."""

    signal_args: Sequence[object] | None
