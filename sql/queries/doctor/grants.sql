-- What the current user may do in the schema, as one JSON object. It reads catalogues only, so a user without any rights can run it.
--
-- "member": whether it is a member of the workers' role without inheriting its rights. "grants_inherit": whether each grant says so
-- (PostgreSQL 16), or the role. "missing", "functions": the rights in question that it lacks, on objects that exist. "hidden": tables
-- from which row-level security hides rows. "partitions": whether it can create and drop those of the history.
--
-- $1 text: schema · $2 text[]: tables · $3 text[]: a privilege for each of them · $4 text[]: functions
select json_build_object(
    'user', current_user,
    'member', exists (select from pg_roles r where r.rolname = $1 || '_worker' and pg_has_role(r.oid, 'member') and not pg_has_role(r.oid, 'usage')),
    'grants_inherit', current_setting('server_version_num')::int >= 160000,
    'schema', n.oid is not null,
    'register', exists (select from pg_class c where c.relnamespace = n.oid and c.relname = 'migration'),
    'usage', coalesce(has_schema_privilege(n.oid, 'usage'), false),
    'missing', (
        select coalesce(json_agg(format('%s on %s.%s', w.privilege, $1, w.name) order by w.place), '[]')
        from unnest($2::text[], $3::text[]) with ordinality w (name, privilege, place)
        join pg_class c on c.relnamespace = n.oid and c.relname = w.name
        where not has_table_privilege(c.oid, w.privilege)
          and (w.privilege = 'delete' or not has_any_column_privilege(c.oid, w.privilege))),
    'functions', (
        select coalesce(json_agg(distinct p.proname), '[]') from pg_proc p
        where p.pronamespace = n.oid and not has_function_privilege(p.oid, 'execute')
          and p.proname = any ($4)),
    'hidden', (
        select coalesce(json_agg(c.relname order by c.relname), '[]') from pg_class c
        where c.relnamespace = n.oid and c.relname = any ($2) and row_security_active(c.oid)
          and not exists (
              select from pg_policy p
              where p.polrelid = c.oid and p.polpermissive
                and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'usage')))),
    'partitions', coalesce((
        select p.prosecdef or (has_schema_privilege(n.oid, 'create') and pg_has_role(h.relowner, 'usage'))
        from pg_class h, pg_proc p
        where h.relnamespace = n.oid and h.relname = 'history'
          and p.pronamespace = n.oid and p.proname = 'create_history_partitions'), true))
from (select) one
left join pg_namespace n on n.nspname = $1
