"""The Realtime server and its database, as `tests/worker/realtime` has them."""

from tests.worker.realtime.conftest import logical_postgres, server, supabase

__all__ = ["logical_postgres", "server", "supabase"]
