"""Days are UTC's, and a test that counts them must not begin on one and end on the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

ROOM = timedelta(minutes=1)


async def on_one_day() -> None:
    """Return at once, or in the last minute before midnight once that is over."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if midnight - now < ROOM:
        await anyio.sleep((midnight - now).total_seconds() + 0.1)
