"""The sink that carries messages out in Temporal: `OUTBOX_SINK=outbox_temporal.sink:temporal_sink`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.model.finding import Finding
    from outbox.model.sink import Demand, SinkContext
    from outbox_temporal.sink.sink import TemporalSink


class _Factory:
    """Implements `outbox.model.sink.SinkFactory` and `Examiner`. What it needs is imported when it is asked for."""

    def __call__(self, context: SinkContext) -> AbstractAsyncContextManager[TemporalSink]:
        """Open a sink."""
        from outbox_temporal.sink.sink import open_sink  # noqa: PLC0415 - the SDK takes half a second

        return open_sink(context)

    async def examine(self, context: SinkContext, demand: Demand | None) -> list[Finding]:
        """Say for `outbox doctor` whether it would deliver."""
        from outbox_temporal import doctor  # noqa: PLC0415 - a worker's start does not pay for the doctor's libraries

        return await doctor.examine(context, demand)


temporal_sink = _Factory()
"""The sink factory."""
