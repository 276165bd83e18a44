-- Show that a worker lives: take a lock that ends with this session, and record in the register which lock it is. Returns the lock.
--
-- Each session takes another lock, so it does not wait until the server has noticed the end of the session before. It runs on a connection
-- of its own. With the session's settings the server notices within about ten seconds that a machine is gone, and keeps idle connections
-- open. $1 bigint: worker
with session as materialized (
    select set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false), set_config('idle_session_timeout', '0', false)
),
lock as materialized (
    select k.presence, pg_advisory_lock(k.presence)
    from (select (random() * 9e18)::bigint as presence from session offset 0) k
)
update outbox.worker w
set presence = lock.presence, present_at = clock_timestamp()
from lock
where w.worker_id = $1
returning w.presence
