"""Decides which dead letters may be delivered again without the risk that the sink takes one for new.

A sink that forgets recognises a repeat for a while only. What was first tried longer ago than that may have got through
then and be forgotten now: delivered again, its workflow would start a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from math import inf
from uuid import UUID

import anyio

from outbox.model.sink import Forgetful, SinkContext, SinkFactory, Unavailable
from outbox.store.dead_letters import FoundDeadLetter

Memory = float | Unavailable
"""Seconds for which a sink recognises a repeat, or why it did not say."""


@dataclass(frozen=True, slots=True)
class Risk:
    """Dead letters of one namespace that the sink may have forgotten."""

    message_ids: list[UUID]
    namespace: str | None
    memory: Memory


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes back, in the messages' order, and what does not."""

    go: list[UUID]
    risky: list[Risk]
    living: list[UUID]
    """A living message has their id or dedup_key."""


def in_doubt(found: Iterable[FoundDeadLetter]) -> set[str | None]:
    """The namespaces for which the sink has to be asked."""
    return {letter.namespace for letter in found if letter.starts and not letter.living}


async def ask_sink(
    factory: SinkFactory, context: SinkContext, namespaces: Iterable[str | None]
) -> dict[str | None, Memory]:
    """Ask the sink how long it recognises a repeat in each namespace. Raises ConfigurationError as the factory does."""
    async with factory(context) as sink:
        if not isinstance(sink, Forgetful):
            return dict.fromkeys(namespaces, inf)
        memories: dict[str | None, Memory] = {}
        for namespace in namespaces:
            memories[namespace] = Unavailable("TIMEOUT", f"no answer within {context.deliver_timeout_s:g} s")
            with anyio.move_on_after(context.deliver_timeout_s):
                memories[namespace] = await sink.memory_s(namespace)
        return memories


def plan(found: Iterable[FoundDeadLetter], memory: Callable[[str | None], Memory], *, force: bool) -> Plan:
    """Sort out what goes back, given how long repeats are recognised in each namespace. `force` takes the risk."""
    in_order = sorted(found, key=lambda letter: letter.seq)
    dead = [letter for letter in in_order if not letter.living]
    risky = [letter for letter in dead if _is_risky(letter, memory)]
    unsafe = set() if force else {letter.message_id for letter in risky}
    return Plan(
        go=[letter.message_id for letter in dead if letter.message_id not in unsafe],
        risky=[
            Risk([letter.message_id for letter in letters], name or None, memory(name or None))
            for name, letters in groupby(sorted(risky, key=_namespace), key=_namespace)
        ],
        living=[letter.message_id for letter in in_order if letter.living],
    )


def _namespace(letter: FoundDeadLetter) -> str:
    return letter.namespace or ""


def _is_risky(letter: FoundDeadLetter, memory: Callable[[str | None], Memory]) -> bool:
    if not letter.starts:
        return False
    known_s = memory(letter.namespace)
    return isinstance(known_s, Unavailable) or letter.first_tried_s_ago > known_s
