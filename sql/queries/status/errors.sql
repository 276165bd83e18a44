-- The errors of messages that are tried again, and of dead letters, by topic and cause, as one JSON object. Causes that differ only in
-- numbers, ids and quoted words count as one.
--
-- Of a table with more than $1 pages, only so many are read, and the result is scaled up. Otherwise each number is exact.
--
-- $1 int: pages of a table that are read at most
with share as materialized (
    select least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.message'))) as message,
           least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.dead_letter'))) as dead_letter
),
latest as (
    select m.topic, m.errors -> -1 as error, 100 / share.message as stands_for, false as dead
    from share, lateral (select * from outbox.message tablesample system (share.message) repeatable (0)) m
    where m.errors <> '[]'
    union all
    select d.topic, d.errors -> -1, 100 / share.dead_letter, true
    from share, lateral (select * from outbox.dead_letter tablesample system (share.dead_letter) repeatable (0)) d
),
cause as (
    select topic, error ->> 'kind' as kind, error ->> 'detail' as detail, stands_for, dead,
           left(regexp_replace(error ->> 'detail', '[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9]+|''[^'']*''|"[^"]*"', '#', 'g'), 120) as cause
    from latest
)
select json_build_object('errors', coalesce(json_agg(e), '[]'))
from (
    select topic, kind, round(sum(stands_for)) as messages, round(coalesce(sum(stands_for) filter (where dead), 0)) as dead_letters,
           max(detail) as example
    from cause
    group by topic, kind, cause
    order by messages desc, topic, kind
    limit 10
) e
