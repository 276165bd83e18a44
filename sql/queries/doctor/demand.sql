-- What a sink will receive, as one JSON object. Of a table with more than $1 pages, only so many are read.
--
-- "ways": the targets of unsettled messages: [topic if there is no target, operation, namespace, task queue]. "dead": for each namespace,
-- the age in seconds of the oldest dead letter that starts something (without a target only the sink knows what it does).
--
-- "recent": namespace and task queue of deliveries within the last hour, as far back as the last pages of today's history reach.
--
-- $1 int: pages of a table that are read at most
with share as materialized (
    select least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.message'))) as message,
           least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.dead_letter'))) as dead_letter
),
way as (
    select distinct case when m.target is null then m.topic end as topic, m.target ->> 'operation' as operation,
           m.target ->> 'namespace' as namespace, m.target ->> 'task_queue' as task_queue
    from share, lateral (select * from outbox.message tablesample system (share.message) repeatable (0)) m
    limit 1000
),
dead as (
    select d.target ->> 'namespace' as namespace,
           max(extract(epoch from now() - least(d.claimed_at, (d.errors -> 0 ->> 'at')::timestamptz))) as tried_s_ago
    from share, lateral (select * from outbox.dead_letter tablesample system (share.dead_letter) repeatable (0)) d
    where coalesce(d.target ->> 'operation', 'start_workflow') in ('start_workflow', 'signal_with_start_workflow')
    group by 1
),
today as materialized (  -- where the last pages of today's history begin
    select greatest(0, pg_relation_size(coalesce(
               to_regclass('outbox.history_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')), 'outbox.history_default'))
           / current_setting('block_size')::int - $1) as page
),
recent as (
    select distinct h.namespace, h.task_queue
    from outbox.history h
    where h.settled_at > now() - interval '1 hour' and h.outcome = 'delivered' and h.task_queue is not null
      and h.ctid >= (select format('(%s,0)', page)::tid from today)
    limit 1000
)
select json_build_object(
    'recent', (select coalesce(json_agg(json_build_array(r.namespace, r.task_queue)), '[]') from recent r),
    'ways', (select coalesce(json_agg(json_build_array(w.topic, w.operation, w.namespace, w.task_queue)), '[]') from way w),
    'dead', (select coalesce(json_agg(json_build_array(d.namespace, d.tried_s_ago)), '[]') from dead d))
