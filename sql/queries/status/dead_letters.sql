-- How many dead letters there are, by reason, as one JSON object.
-- Of a table with more than $1 pages, only so many are read, and the result is scaled up. Otherwise each number is exact.
--
-- $1 int: pages of a table that are read at most
with share as materialized (
    select least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.dead_letter'))) as dead_letter
)
select json_build_object(
    'dead_letters', (
        select coalesce(json_object_agg(reason, n), '{}')
        from (select d.reason, round(count(*) * 100 / share.dead_letter) as n
              from share, lateral (select * from outbox.dead_letter tablesample system (share.dead_letter) repeatable (0)) d
              group by d.reason, share.dead_letter) r)
)
