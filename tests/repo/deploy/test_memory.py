"""The documented bound of a worker's memory follows from the defaults, and is below the manifests' limit."""

from __future__ import annotations

import re
from pathlib import Path

from outbox.model.message import CLAIM_BYTES
from outbox.observability.log_writer import _MOST_BYTES as LOG_BYTES
from outbox.relay.settings import RelaySettings
from outbox_temporal.target.byte_cache import CACHE_BYTES
from tests.repo.deploy.test_kubernetes import containers, pods

MIB = 2**20
TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
LIMITS = {
    container["resources"]["limits"]["memory"]
    for pod in pods()
    for container in containers(pod.values[0])
    if container.get("args", [])[:1] == ["run"]
}


def documented() -> list[int]:
    """The last column of the table: MiB by default, the sum at the end."""
    section = TEXT.partition("### Memory\n")[2].partition("\n## ")[0]
    return [int(figure) for figure in re.findall(r"\| (\d+) \|$", section, re.MULTILINE)]


def test_the_documented_bound_of_memory_follows_from_the_defaults() -> None:
    defaults = RelaySettings()
    *parts, together = documented()
    assert parts[1:] == [
        (defaults.concurrency + defaults.prefetch) * 16 // 1024,
        defaults.held_bytes * 8 // MIB,
        defaults.concurrency * 3 // 2,
        (CLAIM_BYTES + 3_472_000) // MIB + 1,
        2 * CACHE_BYTES // MIB,
        LOG_BYTES // MIB,
    ]
    assert together == sum(parts)


def test_the_manifests_give_a_relay_more_memory_than_its_bound() -> None:
    assert LIMITS
    assert all(int(limit.removesuffix("Mi")) > documented()[-1] for limit in LIMITS)
