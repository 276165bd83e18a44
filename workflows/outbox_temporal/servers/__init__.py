"""Throwaway PostgreSQL and Temporal servers from wheels, for the demo, tests and benchmarks."""
