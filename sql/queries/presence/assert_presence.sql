-- Show that a worker lives: take a lock that ends with this session, and say in the register which it is. Returns the lock.
--
-- Each session takes another lock, so that it need not wait until the server has noticed the end of the one before. It is run on a
-- connection that nothing else uses. What is set for the session makes the server notice within ten seconds or so that a
-- whole machine is gone, and keeps idle connections open. $1 bigint: worker
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
