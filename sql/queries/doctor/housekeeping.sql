-- What decides whether the tables stay small, as one JSON object.
--
-- "holders": what keeps vacuum from removing dead rows, the oldest first: sessions, prepared transactions, replication slots. The start
-- is null if this user may not see others' sessions. A vacuum itself is never a holder.
with outbox as (
    select c.oid, c.relname, c.reloptions from pg_class c
    where c.relnamespace = (select m.relnamespace from pg_class m where m.oid = 'outbox.message'::regclass) and c.relkind = 'r'
),
holder as (
    select 'session' as kind, a.pid::text as name, a.usename::text as who, a.application_name as application, a.state,
           coalesce(a.backend_type, '') = 'walsender' as standby, null::bool as active,
           greatest(age(a.backend_xmin), age(a.backend_xid)) as transactions, extract(epoch from clock_timestamp() - a.xact_start) as held_s
    from pg_stat_activity a
    where (a.backend_xmin is not null or a.backend_xid is not null) and a.pid <> pg_backend_pid()
      and (a.datname = current_database() or a.backend_type = 'walsender') and coalesce(a.backend_type, '') <> 'autovacuum worker'
      and a.pid not in (select p.pid from pg_stat_progress_vacuum p)
    union all
    select 'prepared', x.gid, x.owner, null, null, false, null, age(x.transaction), extract(epoch from clock_timestamp() - x.prepared)
    from pg_prepared_xacts x where x.database = current_database()
    union all
    select 'slot', s.slot_name, null, s.slot_type, null, false, s.active, age(s.xmin), null
    from pg_replication_slots s where s.xmin is not null
)
select json_build_object(
    'autovacuum', current_setting('autovacuum')::bool,
    'track_counts', current_setting('track_counts')::bool,
    'unvacuumed', (
        select coalesce(json_agg(o.relname order by o.relname), '[]') from outbox o
        where exists (select from pg_options_to_table(o.reloptions) t where t.option_name = 'autovacuum_enabled' and not t.option_value::bool)),
    'tables', (
        select json_agg(json_build_object(
            'name', o.relname, 'dead', pg_stat_get_dead_tuples(o.oid), 'live', pg_stat_get_live_tuples(o.oid),
            'vacuumed_s_ago', extract(epoch from now() - greatest(pg_stat_get_last_autovacuum_time(o.oid), pg_stat_get_last_vacuum_time(o.oid)))))
        from outbox o),
    'holders', (select coalesce(json_agg(h order by h.transactions desc), '[]') from (select * from holder order by transactions desc limit 20) h))
