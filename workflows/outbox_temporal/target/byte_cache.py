"""A cache that is bounded by bytes. What it keeps comes from producers, so a bound by count alone bounds no memory."""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

CACHE_BYTES = 2 * 2**20
"""What one cache keeps at most: some hundreds of targets of the usual kind."""
_SHARE = 16
"""An entry of more than this part of a cache is not kept: it is rarely shared, and would push out too many others."""


class ByteCache(Generic[Key, Value]):
    """Keeps values by key until they are too large together; then it forgets all. Those in use come back at once."""

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._values: dict[Key, Value] = {}
        self.get = self._values.get
        self.bytes = 0
        """What the entries have together, by what `put` was given."""

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value under a new key. `size` is what both have in memory, in bytes, and rather more than less."""
        if size * _SHARE > self._most_bytes:
            return
        if self.bytes + size > self._most_bytes:
            self._values.clear()
            self.bytes = 0
        self._values[key] = value
        self.bytes += size
