-- Least privilege: three roles without login, named after the schema (outbox_producer, outbox_worker, outbox_reader), to be granted
-- to the logins of applications, relays and people. docs/deployment.md says what each is for.
--
-- Roles belong to the whole server: another database's migration may have created them. And if the migrating login may not create roles,
-- an administrator must. So a function gives the rights that are missing, and the migration runner calls it at the end of each run. A
-- migration that adds a table or a function adds it to outbox.rights().

-- What each role may do. All else only the owner may.
create function outbox.rights() returns table (role text, privilege text, object text)
language sql stable
as $$
    select role, privilege, object
    from (values
        -- The version of the schema, which each start reads.
        ('{producer,worker,reader}'::text[], '{select}'::text[], '{migration}'::text[]),

        ('{producer,worker}', '{execute}',
         '{enqueue, enqueue_many, start_workflow, signal_workflow, signal_with_start_workflow, cancel_workflow, terminate_workflow, cancel}'),
        -- These only compute, for the functions above and for those that captures write.
        ('{producer,worker}', '{execute}',
         '{arguments, seconds, scoped, refuse, new_message_id, due_at, lane, check_message, check_name, check_names, check_values,
           check_target, check_same, check_names_of_target, check_word, check_types, check_policies, check_objects, check_retry_policy, check_time, check_interval, check_durations,
           check_large, check_depth, check_escapes, check_parts, check_headers, check_search_attributes}'),
        -- To install a capture, a login also needs to own the table, and `create` on the schema.
        ('{producer}', '{execute}',
         '{capture, uncapture, lock_name, check_capture, check_expressions, capture_operations, capture_rows, capture_fault, capture_columns,
           capture_body, write_capture, drop_captures, drop_unused_capture_functions}'),

        ('{worker,reader}', '{select}',
         '{message, history, history_default, dead_letter, delivered_key, worker, uptime, home, control, pause, topic_limit, ended_rule, import, imported,
           message_life, capture_trigger, captures}'),
        ('{worker,reader}', '{execute}', '{dead_letters, matches, probe, recent, home_fault, place, claim_may_be_lost, broadcast_fault, sequences, droppable, may_own}'),

        ('{worker}', '{insert,update,delete}',
         '{message, dead_letter, delivered_key, worker, control, pause, topic_limit, ended_rule, import, imported}'),
        ('{worker}', '{insert}', '{history, uptime}'),
        ('{worker}', '{usage}', '{rule_id}'),
        ('{worker}', '{execute}',
         '{wake, take_from_limit, call_sleepers, create_history_partitions, old_history_partitions, drop_history_partition, drop_history_partitions,
           delete_stray_history, set_switch, pause, resume,
           check_pattern, limit_topic, new_rule_id, change_alone, commit_durably, fault_of_message, note_uptime, expiry, look_home, adopt}')
    ) as r (roles, privileges, objects), unnest(r.roles) as role, unnest(r.privileges) as privilege, unnest(r.objects) as object
$$;
comment on function outbox.rights() is
    'What each role may do in this schema: tables, views, sequences and functions by their names. All else only the owner may.';

-- The statements that give the rights which are missing, for roles that exist. They also fix the search_path of each function.
create function outbox.wanted_grants() returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with here as (
        select n.oid, n.nspname::text as name
        from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'outbox.message'::regclass
    ),
    owed as (
        select g.oid as grantee, g.rolname, r.role, r.privilege, r.object, here.oid as schema
        from here, outbox.rights() r
        join pg_roles g on g.rolname = (select name from here) || '_' || r.role
    )
    -- PostgreSQL lets every login call a new function.
    select format('revoke execute on function %s from public', p.oid::regprocedure)
    from here
    join pg_proc p on p.pronamespace = here.oid
    where pg_has_role(p.proowner, 'usage')
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
    union all
    -- Otherwise an operator or a function in a schema of the caller's search_path could replace PostgreSQL's own, and run with the caller's
    -- rights. A function with a bound body needs no path. The checks of a message use their caller's: a setting for each of these calls
    -- would cost up to a tenth of an enqueue (ADR 17).
    select format('alter function %s set search_path = pg_catalog, pg_temp', p.oid::regprocedure)
    from here
    join pg_proc p on p.pronamespace = here.oid
    where pg_has_role(p.proowner, 'usage')
      and p.prosqlbody is null
      and p.proname <> 'refuse' and coalesce(p.proargnames[1] <> 'place', true)
      and not exists (select from unnest(p.proconfig) as c (setting) where starts_with(c.setting, 'search_path='))
    union all
    select distinct format('grant usage on schema %I to %I', here.name, o.rolname)
    from here, owed o
    where not has_schema_privilege(o.grantee, o.schema, 'usage')
    union all
    select format('grant execute on function %s to %I', p.oid::regprocedure, o.rolname)
    from owed o
    join pg_proc p on p.pronamespace = o.schema and p.proname = o.object
    where o.privilege = 'execute'
      and not exists (select from aclexplode(p.proacl) a where a.grantee = o.grantee)  -- what every login may is revoked above
    union all
    select format('grant %s on %s %s to %I', string_agg(o.privilege, ', '), case c.relkind when 'S' then 'sequence' else 'table' end,
                  c.oid::regclass, o.rolname)
    from owed o
    join pg_class c on c.relnamespace = o.schema and c.relname = o.object
    where case when o.privilege = 'execute' then false
               when c.relkind = 'S' then not has_sequence_privilege(o.grantee, c.oid, o.privilege)
               else not has_table_privilege(o.grantee, c.oid, o.privilege) end
    group by c.oid, c.relkind, o.rolname
    union all
    -- Row-level security, which may be enabled for Realtime, hides every row from roles without a policy. Owners need none.
    select format('create policy %s on %s for %s to %I using (true)', o.role, c.oid::regclass,
                  case when bool_or(o.privilege <> 'select') then 'all' else 'select' end, o.rolname)
    from owed o
    join pg_class c on c.relnamespace = o.schema and c.relname = o.object
    where c.relkind in ('r', 'p') and o.privilege <> 'execute'
      and not exists (select from pg_policy y where y.polrelid = c.oid and y.polname = o.role)
    group by o.role, c.oid, o.rolname
    union all
    -- With `force` it would hide them from the owner too, and the producers' functions run as the owner.
    select format('drop policy if exists owner on %1$s; create policy owner on %1$s for all to %2$I using (true)', c.oid::regclass, r.rolname)
    from here
    join pg_class c on c.relnamespace = here.oid and c.relkind in ('r', 'p') and c.relname !~ '^history_[0-9]{8}$'
    join pg_roles r on r.oid = c.relowner
    where pg_has_role(c.relowner, 'usage')
      and not exists (select from pg_policy y where y.polrelid = c.oid and y.polname = 'owner' and y.polroles = array[c.relowner])
$$;

create function outbox.grant_roles() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    schema  text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'outbox.message'::regclass);
    name    text;
    missing text[] := '{}';
    wanted  text;
begin
    for name in select distinct schema || '_' || r.role from outbox.rights() r order by 1 loop
        continue when to_regrole(name) is not null;
        begin
            execute format('create role %I nologin', name);
        exception
            when duplicate_object or unique_violation then null;  -- another database's migration was faster
            when insufficient_privilege then missing := missing || name;
        end;
    end loop;
    foreach wanted in array array(select outbox.wanted_grants()) loop
        execute wanted;
    end loop;
    if missing <> '{}' then
        raise warning 'outbox: % may not make roles, so these are missing: %', current_user, array_to_string(missing, ', ')
            using hint = format('to have them, let an administrator run: %s; and then run outbox migrate again',
                                (select string_agg(format('create role %I', m), '; ') from unnest(missing) m));
    end if;
end
$$;
comment on function outbox.grant_roles() is
    'Make the roles of this schema that are missing, and give each the rights that it lacks. Every outbox migrate ends with it.';
