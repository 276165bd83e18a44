-- What was settled in the last hour, as one JSON object: delivered, duplicates, and discarded.
--
-- Its cost is about the same for any number of messages. The latest are in the last pages of their day's history. Half of $1 pages are read
-- from there. If these do not reach back an hour, as many pages of the whole day are read as well, and what these show is scaled up.
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
    select least(100, 100.0 * ($1 / 2) / greatest(1, today + yesterday)) as history
    from day
),
tail as materialized (  -- the latest of today, and of yesterday if that was less than an hour ago
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
    select t.settled_at, t.available_at, t.outcome, 1.0::float8 as stands_for
    from tail t, reach, block
    where reach.since <= block.hour_ago and t.settled_at > block.hour_ago and t.outcome <> 'cancelled'
    union all
    select h.settled_at, h.available_at, h.outcome, 100 / share.history
    from share, reach, block, lateral (
        select * from outbox.history tablesample system (share.history) repeatable (0)
        where settled_at > now() - interval '1 hour' and outcome <> 'cancelled') h
    where reach.since > block.hour_ago
)
select json_build_object(
    'completed', (
        select json_build_object(
            'last_minute', (
                select round(count(*) * case when reach.since <= block.minute_ago then 1
                                             else 60 / greatest(0.001, extract(epoch from now() - reach.since)) end)
                from tail t where t.settled_at > block.minute_ago and t.outcome = 'delivered'),
            'last_hour', round(coalesce(sum(l.stands_for) filter (where l.outcome = 'delivered'), 0)),
            'duplicates_last_hour', round(coalesce(sum(l.stands_for) filter (where l.outcome = 'duplicate'), 0)),
            'discarded_last_hour', round(coalesce(sum(l.stands_for) filter (where l.outcome = 'discarded'), 0)),
            'latency_p50_s', percentile_cont(0.5) within group (order by extract(epoch from l.settled_at - l.available_at)) filter (where l.outcome = 'delivered' and isfinite(l.available_at)),
            'latency_p99_s', percentile_cont(0.99) within group (order by extract(epoch from l.settled_at - l.available_at)) filter (where l.outcome = 'delivered' and isfinite(l.available_at)))
        from block cross join reach left join lately l on true
        group by reach.since, block.minute_ago)
)
