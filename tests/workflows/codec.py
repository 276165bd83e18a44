"""A payload codec that hides bytes, for `OUTBOX_TEMPORAL_PAYLOAD_CODEC`."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/reversed"


class ReversingCodec(PayloadCodec):
    """Reverses the serialized payload."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": ENCODING}, data=p.SerializeToString()[::-1]) for p in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(p.data[::-1]) if p.metadata.get("encoding") == ENCODING else p for p in payloads]


not_a_codec = 42
