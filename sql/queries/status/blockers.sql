-- Which sessions block others on the outbox's tables, and since when, as one JSON array. It waits for no lock, and reads catalogues only.
--
-- First come sessions that hold, or wait for, a lock that shuts writers out. All others wait behind one that waits, so it is shown with
-- those for which it waits. Then come old transactions that are idle and may hold rows. Null is what the caller may not see.
with ours as materialized (
    select c.oid, c.relname
    from pg_class c
    where c.relkind in ('r', 'p') and c.relnamespace = (select t.relnamespace from pg_class t where t.oid = to_regclass('outbox.message'))
),
every as materialized (
    select * from pg_locks
),
prepared as materialized (  -- no process has them; their locks are found by their transaction
    select e.virtualtransaction, p.gid, p.prepared, p.owner
    from pg_prepared_xacts p
    join every e on e.pid is null and e.locktype = 'transactionid' and e.transactionid = p.transaction
),
locks as materialized (
    select l.pid, o.relname, l.mode, l.granted, p.gid, coalesce(p.prepared, a.xact_start) as since, p.owner,
           a.application_name, a.usename, a.state
    from every l
    join ours o on o.oid = l.relation
    left join pg_stat_activity a on a.pid = l.pid
    left join prepared p on l.pid is null and p.virtualtransaction = l.virtualtransaction
    where l.locktype = 'relation' and l.database = (select d.oid from pg_database d where d.datname = current_database())
      and l.pid is distinct from pg_backend_pid()
),
strong as (
    select * from locks where mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
),
waited_for as (  -- what a strong lock waits for itself, with any lock
    select l.*
    from (select distinct unnest(pg_blocking_pids(s.pid)) as pid from strong s where not s.granted) b
    join locks l on l.pid = b.pid and l.granted
),
idle as (
    select * from locks
    where granted and mode in ('RowShareLock', 'RowExclusiveLock') and (gid is not null or state like 'idle in transaction%')
      and since < now() - interval '5 seconds'
),
candidate as (
    select 1 as rank, * from strong where granted
    union all select 2, * from waited_for
    union all select 3, * from strong where not granted
    union all select 4, * from idle where not exists (select from strong)
),
each as (  -- one line a session: its strongest claim
    select distinct on (pid, gid) * from candidate order by pid, gid, rank, relname
)
select coalesce(json_agg(json_build_object(
    'pid', pid, 'prepared', gid, 'application', application_name, 'user', coalesce(owner, usename), 'state', state,
    'age_s', extract(epoch from clock_timestamp() - since), 'table', relname, 'mode', mode, 'waits', not granted, 'certain', rank < 4)
    order by rank, since), '[]')
from each
