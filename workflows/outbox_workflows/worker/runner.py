"""One process's workflow worker: waits for its servers, serves until stopped, drains."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio
from anyio.abc import TaskStatus
from loguru import logger
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Interceptor, Worker

from outbox.loops.backoff import Backoff
from outbox.model.errors import ConfigurationError, DatabaseUnavailable
from outbox_temporal.sdk.client import connect, require_namespace
from outbox_temporal.sdk.rotation import follow
from outbox_temporal.sdk.worker import serving
from outbox_workflows.shared.database import Application, open_application
from outbox_workflows.worker.families import collect
from outbox_workflows.worker.logs import core_logging

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from outbox.config.settings import Settings
    from outbox_workflows.worker.settings import WorkflowSettings

T = TypeVar("T")
State = Literal["starting", "running", "draining"]
_RETRIES = Backoff(0.2, 5.0)
PROGRAM = "outbox-workflows"
"""The label `program` of every metric, by which alerts distinguish this worker from other workers of the SDK."""


class WorkflowWorker:
    """Carries out the workflows of its task queue. `stop` begins the drain; `run` returns when it is over."""

    def __init__(self, settings: Settings, own: WorkflowSettings) -> None:
        self._settings = settings
        self._own = own
        self._stopped = anyio.Event()
        self._starting = anyio.CancelScope()
        self.application: Application | None = None
        """The database, once it has answered."""
        self.client: Client | None = None
        """Temporal, once it has answered."""
        self.polling = False
        """Whether tasks are polled for."""
        self.stopping = False
        """Whether the shutdown has begun."""

    @property
    def state(self) -> State:
        """The one word for it."""
        return "draining" if self.stopping else "running" if self.polling else "starting"

    def stop(self) -> None:
        """Begin the shutdown, at any stage of the worker. Safe to call twice."""
        self.stopping = True
        self._starting.cancel()
        self._stopped.set()

    async def run(
        self, tracer: Tracer | None = None, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until stopped, then drain. Started once tasks are polled for. `tracer` is for spans of what is done.

        Servers that do not answer yet are waited for. Raises ConfigurationError or SchemaError where waiting is no use,
        RuntimeError when Temporal's SDK gives up.
        """
        runtime = self._runtime()
        async with AsyncExitStack() as stack:
            self.application = await self._retry_while_unavailable("database", lambda: self._open(stack))
            if self.application is None:
                return
            self.client = await self._retry_while_unavailable("Temporal", partial(self._connect, runtime))
            if self.client is None:
                return
            worker = self._worker(self.application, self.client, tracer)
            async with serving(worker, on_end=self.stop), anyio.create_task_group() as tasks:
                tasks.start_soon(follow, worker, partial(self._reconnect, runtime))
                self.polling = True
                logger.bind(
                    worker=self._settings.worker_name, task_queue=self._own.task_queue, families=self._own.families
                ).info("workflow worker started")
                task_status.started()
                await self._stopped.wait()
                tasks.cancel_scope.cancel()
                logger.info("workflow worker draining")
            logger.info("workflow worker drained")

    def _worker(self, application: Application, client: Client, tracer: Tracer | None) -> Worker:
        own = self._own
        workflows, activities = collect(own.chosen_families(), application, own.ports())
        return Worker(
            client,
            task_queue=own.task_queue,
            workflows=workflows,
            activities=activities,
            max_concurrent_workflow_tasks=own.concurrent_workflow_tasks,
            max_concurrent_activities=own.concurrent_activities,
            graceful_shutdown_timeout=timedelta(seconds=own.drain_timeout_s),
            interceptors=[_interceptor(tracer)] if tracer else [],
        )

    async def _open(self, stack: AsyncExitStack) -> Application:
        return await stack.enter_async_context(
            open_application(self._settings.dsn, self._settings.schema_name, size=self._own.database_connections)
        )

    async def _connect(self, runtime: Runtime) -> Client:
        client = await connect(identity=self._settings.worker_name, runtime=runtime)
        await require_namespace(client)
        return client

    async def _reconnect(self, runtime: Runtime) -> Client:
        self.client = await self._connect(runtime)
        return self.client

    def _runtime(self) -> Runtime:
        """The SDK's runtime, with its metrics where they are wanted. What its core says goes to our log."""
        address = self._own.metrics_address
        metrics = address and PrometheusConfig(
            bind_address=address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
        )
        try:
            telemetry = TelemetryConfig(
                logging=core_logging(), metrics=metrics or None, global_tags={"program": PROGRAM}
            )
            return Runtime(telemetry=telemetry)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                f"OUTBOX_WORKFLOWS_METRICS_ADDRESS is {address!r}: the SDK cannot serve metrics there: {error}"
            ) from error

    async def _retry_while_unavailable(self, server: str, step: Callable[[], Awaitable[T]]) -> T | None:
        """Take a step again and again while a server does not answer; return None if stopped before."""
        failures = 0
        with anyio.CancelScope() as self._starting:
            while not self.stopping:
                try:
                    return await step()
                except (DatabaseUnavailable, RPCError, RuntimeError) as error:  # the SDK's connect raises RuntimeError
                    if not failures:
                        logger.bind(server=server, error=str(error)).warning("server does not answer, trying again")
                    failures += 1
                    await anyio.sleep(_RETRIES.delay_s(failures))
        return None


def _interceptor(tracer: Tracer) -> Interceptor:
    """Continues the trace of a workflow's starter, which the relay or a client has put into the header."""
    from temporalio.contrib.opentelemetry import TracingInterceptor  # noqa: PLC0415 - it needs an extra

    return TracingInterceptor(tracer)
