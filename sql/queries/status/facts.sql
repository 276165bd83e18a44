-- The state of the whole outbox for monitoring, as one JSON object.
--
-- Its cost is about the same for any number of messages. Of a table with more than $1 pages, only so many are read, and the result is
-- scaled up. Otherwise each number is exact. "oldest_ready_s" is how long the first message has been due: by the index, and for
-- restricted messages, which have no common order, by what was read.
--
-- $1 int: pages of a table that are read at most
with share as materialized (
    select least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.message'))) as message,
           least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.dead_letter'))) as dead_letter
),
seen as materialized (
    select
        count(*) as all,
        count(*) filter (where m.due_at <= now() and (m.leased_until is null or m.leased_until <= now())) as pending,
        count(*) filter (where m.leased_until > now()) as processing,
        count(*) filter (where m.due_at > now() and m.due_at < 'infinity' and m.leased_until is null) as scheduled,
        count(*) filter (where m.due_at = 'infinity') as waiting,
        count(*) filter (where m.attempts > 0 or m.errors <> '[]') as retrying,
        min(m.due_at) filter (where m.due_at <= now() and (m.leased_until is null or m.leased_until <= now())) as oldest
    from share, lateral (select * from outbox.message tablesample system (share.message) repeatable (0)) m
),
front as materialized (
    select (
        select m.due_at from outbox.message m
        where not m.restricted and m.due_at <= now() and (m.leased_until is null or m.leased_until <= now())
        order by m.due_at, m.seq limit 1) as due_at
),
held as (  -- what keeps vacuum from removing dead rows
    select max(age(xmin)) as transactions from (
        select backend_xmin as xmin from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        union all select xmin from pg_replication_slots
        union all select transaction from pg_prepared_xacts where database = current_database()) x
),
days as (
    select count(*) as partitions, max(to_date(right(c.relname, 8), 'YYYYMMDD')) as latest
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'outbox.history'::regclass and c.relname ~ '^history_[0-9]{8}$'
)
select json_build_object(
    'backlog', round(seen.all * 100 / share.message),
    'states', json_build_object(
        'pending', round(seen.pending * 100 / share.message),
        'processing', round(seen.processing * 100 / share.message),
        'scheduled', round(seen.scheduled * 100 / share.message),
        'waiting', round(seen.waiting * 100 / share.message),
        'retrying', round(seen.retrying * 100 / share.message)),
    'oldest_ready_s', coalesce(extract(epoch from now() - nullif(least(front.due_at, seen.oldest), '-infinity')), 0),
    'dead_letters', (
        select round(count(*) * 100 / share.dead_letter)
        from lateral (select from outbox.dead_letter tablesample system (share.dead_letter) repeatable (0)) d),
    'dead_tuples', pg_stat_get_dead_tuples('outbox.message'::regclass),
    'message_table_bytes', pg_total_relation_size('outbox.message'),
    'xmin_age', coalesce(held.transactions, 0),
    'notifications', pg_notification_queue_usage(),
    'history_partitions', days.partitions,
    'history_days_ahead', coalesce(days.latest - (now() at time zone 'UTC')::date, 0),
    'workers', (
        select count(*) from outbox.worker
        where stopped_at is null and state <> 'dead'
          and case when presence is null or pg_is_in_recovery() then seen_at > now() - interval '65 seconds'
                   else not pg_try_advisory_xact_lock_shared(presence) end),
    'pauses', (select count(*) from outbox.pause),
    'oldest_pause_s', (select coalesce(extract(epoch from now() - min(paused_at)), 0) from outbox.pause),
    'limits', (select count(*) from outbox.topic_limit))
from share, seen, front, held, days
