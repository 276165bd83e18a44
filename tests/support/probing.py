"""Asking a worker over HTTP, as a kubelet or a Prometheus does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection

from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families

from outbox_temporal.servers.process import _free_ports
from tests.support.eventually import eventually

ANSWERED_WITHIN_S = 15.0
"""More than any probe may take, on a busy machine."""


def free_port() -> int:
    """A free port."""
    return _free_ports(1)[0]


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: str

    @property
    def parts(self) -> dict[str, str]:
        """What a probe says of each part."""
        return dict(json.loads(self.body)["parts"])

    @property
    def faults(self) -> str:
        """The parts that are not well, in one line."""
        return "; ".join(f"{part}: {reason}" for part, reason in self.parts.items() if reason != "ok")


def ask(port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """One request over a connection of its own. Fails if there is no answer in time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN_S)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers.get("Content-Type", ""), response.read().decode())
    finally:
        connection.close()


async def get(port: int, path: str) -> Answer:
    """The same, while the event loop goes on."""
    return await to_thread.run_sync(ask, port, path)


async def becomes(port: int, path: str, status: int, says: str = "", *, timeout_s: float = 40.0) -> Answer:
    """The first answer with this status that says this."""
    return await eventually(
        lambda: get(port, path), lambda answer: answer.status == status and says in answer.body, timeout_s=timeout_s
    )


async def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels."""
    answer = await get(port, "/metrics")
    assert answer.status == 200, answer
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.body):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


def total(samples: dict[tuple[str, ...], float]) -> float:
    """The sum over all labels."""
    return sum(samples.values())
