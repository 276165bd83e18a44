"""A payload codec that hides bytes, for `OUTBOX_TEMPORAL_PAYLOAD_CODEC`."""

from __future__ import annotations

import builtins
import json
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


class RaisingCodec(PayloadCodec):
    """Raises the built-in error that a payload asks for, and quotes the payload."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        for payload in payloads:
            content = json.loads(payload.data)
            if isinstance(content, dict) and "raise" in content:
                raise getattr(builtins, content["raise"])(f"cannot encode {content}")
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


not_a_codec = 42
