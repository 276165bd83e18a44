-- Delete workers that ended, or stopped their heartbeats, before the oldest history; never one that may only be slow. Returns which.
-- $1 float: seconds, at least a day
delete from outbox.worker
where coalesce(stopped_at, seen_at) < now() - make_interval(secs => greatest($1, 86400))
returning 'forgotten' as what, name
