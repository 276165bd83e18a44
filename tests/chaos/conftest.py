"""The Realtime server and its database, as `tests/realtime` has them."""

from tests.realtime.conftest import logical_postgres, server, supabase

__all__ = ["logical_postgres", "server", "supabase"]
