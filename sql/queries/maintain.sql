-- Make the history ready for the coming days and forget what is beyond retention, unless another worker is at it right now.
-- Dropping needs the stronger lock and so comes first: raising a lock that settles wait for could end in a deadlock.
-- Returns what was done. $1 int: days ahead · $2 int: days to keep
with mine as materialized (
    select pg_try_advisory_xact_lock(hashtextextended('outbox.maintenance', 0)) as lock
),
forgotten as (
    delete from outbox.worker
    where coalesce(stopped_at, seen_at) < now() - make_interval(days => $2) and (select lock from mine)
    returning name
)
select 'dropped' as what, part as name from mine, lateral outbox.drop_history_partitions($2) as part where lock
union all
select 'created', part from mine, lateral outbox.create_history_partitions($1) as part where lock
union all
select 'forgotten', name from forgotten
