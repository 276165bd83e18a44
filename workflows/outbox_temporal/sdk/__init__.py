"""Connections and workers of Temporal's SDK."""
