"""The Realtime server and its database, as `tests/worker/realtime` has them."""

from tests.worker.realtime.conftest import logical_postgres, server, supabase, supabase_template

__all__ = ["logical_postgres", "server", "supabase", "supabase_template"]
