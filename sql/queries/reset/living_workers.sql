-- Workers that run: those with a lock that their session holds (presence/assert_presence.sql), and those that cannot have one and had a
-- recent heartbeat.
select w.worker_id, w.name
from outbox.worker w
where w.stopped_at is null
  and case when w.presence is null then w.seen_at > now() - interval '65 seconds' else not pg_try_advisory_xact_lock_shared(w.presence) end
order by w.worker_id
