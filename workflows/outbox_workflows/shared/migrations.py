"""The application schema's versions, kept like the outbox's own."""

from __future__ import annotations

from outbox.store.migrations import OUTBOX, Lineage

APPLICATION = Lineage(
    "application",
    "outbox workflows migrate",
    """
    select outbox.capture('app.event',
        topic      => 'new.type',
        payload    => $$jsonb_build_object('event_id', new.event_id, 'tenant_id', new.tenant_id, 'stream', new.stream,
                                           'type', new.type, 'occurred_at', new.occurred_at) || new.data$$,
        key        => 'new.stream',
        message_id => 'new.event_id')
    """,
    schema="app",
    stands_on=OUTBOX,
)
"""The schema `app`. It needs the outbox's, into which its events are captured."""
