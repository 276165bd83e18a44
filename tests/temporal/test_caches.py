"""What the adapter keeps comes from producers, so its caches are bounded by bytes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.converter import DataConverter

from outbox_temporal.sink.requests import Requests
from outbox_temporal.target import target
from outbox_temporal.target.byte_cache import CACHE_BYTES, ByteCache
from outbox_temporal.target.target import Command, Target, parse
from tests.temporal.conftest import message, start

NOISE_BYTES = 100_000
"""What else a test process allocates beside the caches."""
KINDS: dict[str, Callable[[int], dict[str, object]]] = {
    "usual": lambda n: {"run_timeout_s": n},
    "text": lambda n: {"details": f"{n} " + "x" * 5000 + "🙂"},  # Python keeps four bytes for each character
    "list": lambda n: {"run_timeout_s": n, "retry_policy": {"non_retryable_error_types": [f"{i}" for i in range(500)]}},
    "name": lambda n: {"namespace": f"{n} " + "ü" * 2000},
    "huge": lambda n: {"signal": f"{n} " + "x" * 1_000_000 + "🙂"},
}


@given(st.lists(st.integers(1, 200), max_size=100))
def test_cache_never_keeps_more_than_its_bytes(sizes: list[int]) -> None:
    cache = ByteCache[int, str](1000)
    for key, size in enumerate(sizes):
        cache.put(key, f"value {key}", size)
        kept = [n for n in range(key + 1) if cache.get(n) == f"value {n}"]
        assert sum(sizes[n] for n in kept) == cache.bytes <= 1000
        assert (key in kept) == (size <= 1000 // 16)


@pytest.mark.parametrize("kind", KINDS)
async def test_kinds_of_targets_take_no_more_memory_than_their_caches_count(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ByteCache[bytes, Target]()
    monkeypatch.setattr(target, "_LIKE", known)
    requests = Requests(namespace="default", identity="me", task_queue=None, converter=DataConverter.default)

    async def build(n: int) -> None:
        sent = message(start(f"wf-{n}", **KINDS[kind](n)))
        command = parse(sent.target or "")
        assert isinstance(command, Command), command
        await requests.start(sent, command)

    await build(0)
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(1, 400 if kind == "usual" else 40):  # enough to fill a cache once
            await build(n)
            counted = known.bytes, requests._starts.bytes
            assert max(counted) <= CACHE_BYTES
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] <= sum(counted) + NOISE_BYTES
    finally:
        tracemalloc.stop()
