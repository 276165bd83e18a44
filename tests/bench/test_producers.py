"""The producers scenario takes every way of enqueueing beside the plain transaction."""

from __future__ import annotations

from statistics import median

import pytest

from outbox_bench.scenarios import producers
from tests.bench.measuring import by_name, measured
from tests.support.running import counts, fetch
from tests.support.sql import connected


async def test_every_way_is_compared_with_the_plain_transaction_and_leaves_nothing_behind(database: str) -> None:
    report = await measured(producers, database, connections=(2,), seconds=0.05, laps=1, runs=1)
    figures = by_name(report)
    for company in (producers.ALONE, producers.LISTENING):
        for way in producers.WAYS:
            where = f"2 connections, {company}"
            name = f"{way.name}: {where}" if way.name == way.plain else f"{way.name} ÷ plain: {where}"
            assert figures[name][0] > 0
        many, plain = (median(report.samples[f"{name}: {where}"]) for name in ("enqueue_many of 100", "plain"))
        assert many > plain
    assert report.series["enqueue ÷ plain, no worker"][0][0] == 2
    # Nothing of it is left behind.
    assert set((await counts(database)).values()) == {0}
    assert not await fetch(database, "select from pg_namespace where nspname = 'outbox_bench'")
    assert not await fetch(database, "select from pg_proc where proname like 'captured%'")


@pytest.mark.parametrize("way", producers.WAYS, ids=lambda way: way.name)
async def test_each_way_writes_what_its_name_says(database: str, way: producers.ProducerWay) -> None:
    expected = {"plain": 0, "plain, psycopg": 0, "enqueue_many of 100": 100, "Python producer, 100": 100}
    async with connected(database) as admin, producers._tables(admin):
        async with producers._connection(database, way) as connection:
            await way.transaction(connection)
        assert (await counts(database))["message"] == expected.get(way.name, 1)
        rows = "select (select count(*) from outbox_bench.business) + (select count(*) from outbox_bench.captured)"
        assert await admin.fetchval(rows) == 1
