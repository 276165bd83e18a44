-- Workers whose presence has ended: nobody holds the lock that they said they hold (presence/assert_presence.sql).
--
-- The lock is tried, which costs next to nothing; it is held until the end of this statement, is shared with whoever tries it at the same
-- time, and keeps nobody out, because a worker that comes back takes another one. After a restart of the server nobody holds anything:
-- whoever was there before it has some time to come back. One absence proves nothing; see outbox/worker/rescue.py.
--
-- $1 bigint: worker that asks · $2 float: seconds for coming back
select w.worker_id, w.presence
from outbox.worker w
where w.presence is not null and w.worker_id <> $1
  and (w.present_at > pg_postmaster_start_time() or clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => $2))
  and pg_try_advisory_xact_lock_shared(w.presence)
