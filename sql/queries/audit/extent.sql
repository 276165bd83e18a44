-- How many messages an audit will read, which namespaces they name, and since when no history was dropped. Older messages may be
-- missing because they were pruned. $1 timestamptz: since · $2 timestamptz: until
select count(*)::bigint as messages, coalesce(array_agg(distinct namespace) filter (where namespace is not null), '{}') as namespaces,
    (select coalesce(min(to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp at time zone 'UTC'), now())
     from pg_inherits i
     join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'outbox.history'::regclass and c.relname ~ '^history_[0-9]{8}$') as kept_since
from (
    select h.namespace
    from outbox.history h
    where h.settled_at >= $1 and h.settled_at < $2 and h.claimed_at is not null
      and (h.operation is null or h.operation in ('start_workflow', 'signal_with_start_workflow'))
    union all
    select d.target ->> 'namespace'
    from outbox.dead_letter d
    where d.died_at >= $1 and d.died_at < $2
      and (d.target is null or d.target ->> 'operation' in ('start_workflow', 'signal_with_start_workflow'))
    union all
    select m.target ->> 'namespace'
    from outbox.message m
    where m.claimed_at >= $1 and m.claimed_at < $2
      and (m.target is null or m.target ->> 'operation' in ('start_workflow', 'signal_with_start_workflow'))
) e
