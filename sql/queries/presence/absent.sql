-- Workers that have ended: the lock that they recorded is free (presence/assert_presence.sql).
--
-- The lock is tried, which costs almost nothing, and is held until the end of this statement. It is shared, so several workers can try it
-- at the same time. It keeps no worker out, because a worker that comes back takes another lock. After a restart of the server all locks
-- are free, so workers from before it have some time to come back. One absence proves nothing; see outbox/worker/rescue.py.
--
-- $1 bigint: worker that asks · $2 float: seconds for coming back
select w.worker_id, w.presence
from outbox.worker w
where w.presence is not null and w.worker_id <> $1
  and (w.present_at > pg_postmaster_start_time() or clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => $2))
  and pg_try_advisory_xact_lock_shared(w.presence)
