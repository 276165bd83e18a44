-- Everything a person wants to see first, as one JSON object.
--
-- It costs about the same however much there is. Of a table with more than $1 pages, so many are read, and what they show is scaled up; below
-- that every number is exact. What was completed lately stands in the last pages of its day's history: half of $1 of these are read, and where
-- they do not reach back an hour, as many pages of the whole day as well.
--
-- $1 int: pages of a table that are read at most
with block as materialized (
    select current_setting('block_size')::int as bytes,
           now() - interval '1 hour' as hour_ago,
           now() - interval '1 minute' as minute_ago,
           date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' as midnight
),
day as materialized (  -- the pages of today's and yesterday's history
    select
        pg_relation_size(coalesce(to_regclass('outbox.history_' || to_char(midnight at time zone 'UTC', 'YYYYMMDD')), 'outbox.history_default')) / bytes as today,
        case when hour_ago >= midnight then 0
             else coalesce(pg_relation_size(to_regclass('outbox.history_' || to_char(hour_ago at time zone 'UTC', 'YYYYMMDD'))), 0) / bytes end as yesterday
    from block
),
share as materialized (
    select least(100, 100.0 * $1 * bytes / greatest(1, pg_relation_size('outbox.message'))) as message,
           least(100, 100.0 * $1 * bytes / greatest(1, pg_relation_size('outbox.dead_letter'))) as dead_letter,
           least(100, 100.0 * ($1 / 2) / greatest(1, today + yesterday)) as history
    from block, day
),
seen as materialized (
    select m.message_id, m.key, m.due_at, m.available_at, m.leased_until, m.attempts, m.errors
    from share, lateral (select * from outbox.message tablesample system (share.message) repeatable (0)) m
),
dead as materialized (
    select d.reason, d.errors
    from share, lateral (select * from outbox.dead_letter tablesample system (share.dead_letter) repeatable (0)) d
),
tail as materialized (  -- the latest of today, and of yesterday where that was less than an hour ago
    select true as of_today, h.settled_at, h.available_at, h.outcome
    from outbox.history h
    where h.settled_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
      and h.ctid >= (select format('(%s,0)', greatest(0, today - $1 / 2))::tid from day)
    union all
    select false, h.settled_at, h.available_at, h.outcome
    from outbox.history h
    where now() - interval '1 hour' < date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
      and h.settled_at >= now() - interval '25 hours'
      and h.settled_at < date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
      and h.ctid >= (select format('(%s,0)', greatest(0, yesterday - $1 / 2))::tid from day)
),
reach as materialized (  -- since when the tail is complete
    select case when today > $1 / 2 then (select min(settled_at) from tail where of_today)
                when yesterday > $1 / 2 then (select min(settled_at) from tail where not of_today)
                else '-infinity' end as since
    from day
),
lately as materialized (  -- of the last hour: all, or a part
    select t.settled_at, t.available_at, 1.0::float8 as stands_for
    from tail t, reach, block
    where reach.since <= block.hour_ago and t.settled_at > block.hour_ago and t.outcome <> 'cancelled'
    union all
    select h.settled_at, h.available_at, 100 / share.history
    from share, reach, block, lateral (
        select * from outbox.history tablesample system (share.history) repeatable (0)
        where settled_at > now() - interval '1 hour' and outcome <> 'cancelled') h
    where reach.since > block.hour_ago
)
select json_build_object(
    'messages', (
        select json_build_object(
            'pending', round(count(*) filter (where s.due_at <= now() and (s.leased_until is null or s.leased_until <= now())) * 100 / max(share.message)),
            'processing', round(count(*) filter (where s.leased_until > now()) * 100 / max(share.message)),
            'scheduled', round(count(*) filter (where s.due_at > now() and s.due_at < 'infinity' and s.leased_until is null) * 100 / max(share.message)),
            'waiting', round(count(*) filter (where s.due_at = 'infinity') * 100 / max(share.message)),
            'retrying', round(count(*) filter (where s.attempts > 0 or s.errors <> '[]') * 100 / max(share.message)),
            'oldest_pending_s', extract(epoch from now() - min(s.available_at) filter (where s.available_at <= now() and isfinite(s.available_at))))
        from share left join seen s on true),
    'blocked_keys', (  -- keys that wait because their first message has failed or is paused
        select coalesce(json_agg(b), '[]') from (
            select h.key, h.message_id, h.parked, h.attempts, h.errors -> -1 ->> 'detail' as last_error,
                   w.waiting - (h.due_at = 'infinity')::int as waiting,
                   extract(epoch from nullif(h.due_at, 'infinity') - now()) as next_try_s
            from (select s.key, round(count(*) * 100 / share.message) as waiting
                  from seen s, share where s.key is not null and s.due_at = 'infinity' group by s.key, share.message
                  order by waiting desc limit 1000) w,
                 lateral (select * from outbox.message h where h.key = w.key order by h.seq, h.message_id limit 1) h
            where h.errors <> '[]' or h.parked is not null
            order by w.waiting desc limit 5) b),
    'pauses', (
        select coalesce(json_agg(json_build_object('name', coalesce('topic ' || topic, 'key ' || key, 'everything'), 'paused_by', paused_by, 'for_s', extract(epoch from now() - paused_at))
                                 order by paused_at), '[]')
        from outbox.pause),
    'limits', (
        select coalesce(json_agg(json_build_object('topic', topic, 'rate', rate, 'burst', burst,
                                                   'behind_s', greatest(0, extract(epoch from nullif(given_until, '-infinity') - now()))) order by topic), '[]')
        from outbox.topic_limit),
    'dead_letters', (
        select coalesce(json_object_agg(reason, n), '{}')
        from (select d.reason, round(count(*) * 100 / share.dead_letter) as n from dead d, share group by d.reason, share.dead_letter) r),
    'completed', (
        select json_build_object(
            'last_minute', (
                select round(count(*) * case when reach.since <= block.minute_ago then 1
                                             else 60 / greatest(0.001, extract(epoch from now() - reach.since)) end)
                from tail t where t.settled_at > block.minute_ago and t.outcome <> 'cancelled'),
            'last_hour', round(coalesce(sum(l.stands_for), 0)),
            'latency_p50_s', percentile_cont(0.5) within group (order by extract(epoch from l.settled_at - l.available_at)) filter (where isfinite(l.available_at)),
            'latency_p99_s', percentile_cont(0.99) within group (order by extract(epoch from l.settled_at - l.available_at)) filter (where isfinite(l.available_at)))
        from block cross join reach left join lately l on true
        group by reach.since, block.minute_ago),
    'workers', (
        select coalesce(json_agg(json_build_object(
            'worker_id', worker_id, 'name', name, 'version', version, 'state', state, 'started_at', started_at,
            'seen_s_ago', extract(epoch from now() - seen_at), 'detail', detail) order by worker_id), '[]')
        from outbox.worker where stopped_at is null and seen_at > now() - interval '1 hour'),
    'errors', (
        select coalesce(json_agg(e), '[]') from (
            select kind, round(sum(stands_for)) as messages, max(detail) as example
            from (select s.errors -> -1 ->> 'kind' as kind, s.errors -> -1 ->> 'detail' as detail, 100 / share.message as stands_for
                  from seen s, share where s.errors <> '[]'
                  union all select d.errors -> -1 ->> 'kind', d.errors -> -1 ->> 'detail', 100 / share.dead_letter from dead d, share) x
            group by kind order by messages desc limit 5) e)
)
