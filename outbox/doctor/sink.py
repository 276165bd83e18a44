"""Examines the sink: by what it says of itself where it can, else by its probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from outbox.doctor.runner import MissingPrerequisite, section
from outbox.model.errors import OutboxError
from outbox.model.finding import Check, Finding
from outbox.model.sink import SinkContext, SinkFactory, Unavailable, examiner

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.doctor.runner import Prerequisites

SINK = Check("sink", ("fault",))
CHECKS = (SINK,)
_EXAMINE_FOR_S = 60.0
"""Bounds a sink's own examination, which bounds each of its questions."""
_DAY_S = 86_400.0
_SETTINGS = "outbox config  # which of them come from where"


async def examine_sink(factory: SinkFactory | None, settings: Settings, prerequisites: Prerequisites) -> list[Finding]:
    """Examine the sink that the settings name, if it could be found."""
    return await section((SINK,), lambda: _examine(factory, settings, prerequisites))


async def _examine(factory: SinkFactory | None, settings: Settings, prerequisites: Prerequisites) -> list[Finding]:
    if factory is None:
        raise MissingPrerequisite("OUTBOX_SINK leads to none")
    context = SinkContext(settings.worker_name, settings.deliver_timeout_s)
    itself = examiner(factory)
    if itself is None:
        return [await _probed(factory, context)]
    try:
        demand = await prerequisites.outbox().demand(settings.history_days * _DAY_S * settings.history)
    except OutboxError:
        demand = None
    with anyio.fail_after(_EXAMINE_FOR_S):
        return await itself.examine(context, demand)


async def _probed(factory: SinkFactory, context: SinkContext) -> Finding:
    """What the probe says, on which a worker would hold."""
    try:
        async with factory(context) as sink:
            with anyio.fail_after(context.deliver_timeout_s):
                outcome = await sink.probe()
    except OutboxError as error:
        return SINK.fault(str(error), _SETTINGS)
    except TimeoutError:
        return SINK.fault(f"its probe has no answer within {context.deliver_timeout_s:g} s", _SETTINGS)
    except Exception as error:  # noqa: BLE001 - a fault of the sink is a finding
        return SINK.fault(f"its probe raised {type(error).__name__}: {error}", _SETTINGS)
    if isinstance(outcome, Unavailable):
        detail = f"it takes nothing, a worker would hold: {outcome.kind}: {outcome.detail}"
        return SINK.fault(detail, "see the reason, which is the sink's own")
    return SINK.good("its probe says that it takes deliveries")
