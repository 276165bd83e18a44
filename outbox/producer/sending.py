"""Makes a function that sends a call over a connection out of one that describes the call.

Its first argument is the connection. What it returns comes at once over a synchronous connection, and as a coroutine
over an asynchronous one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload
from uuid import UUID

from outbox.producer.calls import Call
from outbox.producer.drivers import AsyncConnection, SyncConnection, Texts, send

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class SendFunction(Protocol[P, R_co]):
    """A function that sends a call over a connection."""

    @overload
    def __call__(self, connection: SyncConnection, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, connection: AsyncConnection, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...


def returns_id(describe: Callable[P, Call]) -> SendFunction[P, UUID]:
    """For a call that makes one message."""
    return cast("SendFunction[P, UUID]", _sending(describe, lambda texts: _ids(texts)[0]))


def returns_ids(describe: Callable[P, Call]) -> SendFunction[P, list[UUID]]:
    """For a call that makes several messages."""
    return cast("SendFunction[P, list[UUID]]", _sending(describe, _ids))


def returns_answer(describe: Callable[P, Call]) -> SendFunction[P, bool | None]:
    """For a question that SQL answers with true, false or null."""
    return cast("SendFunction[P, bool | None]", _sending(describe, lambda texts: _ANSWERS[texts[0]]))


_ANSWERS = {"true": True, "false": False, None: None}


def _ids(texts: Texts) -> list[UUID]:
    return [UUID(text) for text in texts]


def _sending(describe: Callable[..., Call], read: Callable[[Texts], object]) -> Callable[..., object]:
    async def read_later(texts: Coroutine[Any, Any, Texts]) -> object:
        return read(await texts)

    @wraps(describe)
    def sending(connection: SyncConnection | AsyncConnection, *args: object, **kwargs: object) -> object:
        texts = send(connection, describe(*args, **kwargs))
        return read(texts) if isinstance(texts, list) else read_later(texts)

    first = inspect.Parameter("connection", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    described = inspect.signature(describe)
    sending.__signature__ = described.replace(  # type: ignore[attr-defined]  # what help() shows
        parameters=[first, *described.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return sending
