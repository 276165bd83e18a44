-- What decides whether notifications and Realtime's reports are sent, as one JSON object. $1 text: the role of Realtime's key
with message as (
    select c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relowner
    from pg_class c where c.oid = 'outbox.message'::regclass
),
asker as (
    select r.oid, r.rolbypassrls or r.rolsuper as passes_rls from pg_roles r where r.rolname = $1
)
select json_build_object(
    'trigger_enabled', (select t.tgenabled in ('O', 'A') from pg_trigger t, message m where t.tgrelid = m.oid and t.tgname = 'wakeup'),
    'wal_level', current_setting('wal_level'),
    'publication', exists (select from pg_publication where pubname = 'supabase_realtime'),
    'publishes_inserts', (select pubinsert from pg_publication where pubname = 'supabase_realtime'),
    'published', exists (
        select from pg_publication_tables p, message m
        where p.pubname = 'supabase_realtime' and format('%I.%I', p.schemaname, p.tablename)::regclass = m.oid),
    'primary_key', exists (select from pg_index i, message m where i.indrelid = m.oid and i.indisprimary),
    'role', exists (select from asker),
    'schema_usage', (select has_schema_privilege(a.oid, c.relnamespace, 'usage') from asker a, message m join pg_class c on c.oid = m.oid),
    'may_select', (select has_table_privilege(a.oid, m.oid, 'select') from asker a, message m),
    'row_security', (select m.relrowsecurity from message m),
    'passes_row_security', (
        select a.passes_rls or (m.relowner = a.oid and not m.relforcerowsecurity)
               or exists (
                   select from pg_policy p
                   where p.polrelid = m.oid and p.polcmd in ('r', '*') and p.polpermissive
                     and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(a.oid, r, 'member')))
        from asker a, message m),
    'realtime_send', to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null,
    'broadcast_trigger', exists (select from pg_trigger t, message m where t.tgrelid = m.oid and t.tgname = 'broadcast' and t.tgenabled in ('O', 'A')),
    'may_join_broadcast', (
        select a.passes_rls or exists (
            select from pg_policy p
            where p.polrelid = to_regclass('realtime.messages') and p.polcmd in ('r', '*')
              and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(a.oid, r, 'member')))
        from asker a))
