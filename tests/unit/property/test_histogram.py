"""A batch counts like its values one by one, and like prometheus-client's own histogram."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as Reference

from outbox.observability.histogram import SECONDS, Histogram

values = st.lists(st.one_of(st.floats(0, 2000), st.sampled_from(SECONDS)), min_size=1, max_size=60)


@given(values)
def test_a_batch_counts_as_the_reference_does(batch: list[float]) -> None:
    registry = CollectorRegistry()
    reference = Reference("x", "x", buckets=SECONDS, registry=registry)
    for value in batch:
        reference.observe(value)
    ours, one_by_one = Histogram(SECONDS), Histogram(SECONDS)
    for value in batch:
        one_by_one.add(value)
    ours.add_all(list(batch))
    wanted = [sample.value for family in registry.collect() for sample in family.samples if sample.name == "x_bucket"]
    assert [count for _, count in ours.buckets()] == [count for _, count in one_by_one.buckets()] == wanted
    assert ours.total == pytest.approx(sum(batch))


@given(st.lists(values, max_size=4))
def test_batches_add_up(batches: list[list[float]]) -> None:
    together, apart = Histogram(SECONDS), Histogram(SECONDS)
    for batch in batches:
        apart.add_all(list(batch))
    together.add_all([value for batch in batches for value in batch])
    assert list(together.buckets()) == list(apart.buckets())
