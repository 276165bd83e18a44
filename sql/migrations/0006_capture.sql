-- Capture: each row written to a table becomes a message, without a change to the programs that write it.
--
-- A capture is one statement-level trigger per operation, each with a function of its own that outbox.capture() writes: one insert
-- per statement, for any number of rows. The definition is the trigger's argument, so the catalogue itself is the list of captures:
-- pg_dump contains it, and its captures are dropped with a table. Only their functions remain; the next call drops them.
--
-- The functions run with the rights of the role that installed the capture: writers of the table need no rights on the outbox. Their
-- search_path has no schema in which another user could create a name. They do not catch errors to add a capture's name, because that
-- needs a subtransaction for each statement of each writer; the error's context has the function's name.
--
-- They insert into outbox.message themselves and call new_message_id, due_at and check_message. A migration that changes these has
-- to write them again, by calling outbox.capture() with the values in outbox.captures.

create view outbox.capture_trigger as
select
    t.tgrelid::regclass as source,
    t.definition ->> 'name' as name,
    case when t.tgtype & 4 > 0 then 'insert' when t.tgtype & 16 > 0 then 'update' else 'delete' end as operation,
    t.tgname as trigger,
    t.tgfoid as function,
    t.prosrc as body,
    t.definition,
    t.tgenabled <> 'D' as enabled
from (
    select t.*, p.prosrc,
           -- An argument is kept with a zero byte at its end.
           convert_from(substring(t.tgargs from 1 for length(t.tgargs) - 1), getdatabaseencoding())::jsonb as definition
    from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    where p.pronamespace = (select c.relnamespace from pg_class c where c.oid = 'outbox.message'::regclass)
      and starts_with(p.prosrc, '-- Written by outbox.capture()')
      and t.tgnargs = 1
    offset 0  -- no other trigger's arguments are read as JSON
) as t;
comment on view outbox.capture_trigger is 'The triggers of the captures. People read outbox.captures.';

create view outbox.captures as
select
    source,
    name,
    array_agg(operation order by array_position('{insert,update,delete}', operation)) as operations,
    definition ->> 'topic' as topic,
    definition ->> 'payload' as payload,
    definition ->> 'key' as key,
    definition ->> 'headers' as headers,
    definition ->> 'target' as target,
    definition ->> 'message_id' as message_id,
    definition ->> 'dedup_key' as dedup_key,
    definition ->> 'available_at' as available_at,
    definition ->> 'priority' as priority,
    definition ->> 'tenant' as tenant,
    definition ->> 'when' as "when",
    bool_and(enabled) as enabled,
    (definition ->> 'installed_at')::timestamptz as installed_at
from outbox.capture_trigger
group by source, name, definition;
comment on view outbox.captures is 'The tables with captures, and the SQL expressions by which their rows become messages.';

-- All of it is in the catalogue, which everyone may read, and the owner of a table may look at its captures.
grant select on outbox.capture_trigger, outbox.captures to public;

create function outbox.capture_operations(operations text) returns text[]
language plpgsql
as $$
declare
    words    text[] := regexp_split_to_array(lower(btrim(operations)), '[[:space:]]*,[[:space:]]*|[[:space:]]+or[[:space:]]+|[[:space:]]+');
    stranger text;
begin
    select word into stranger from unnest(words) as word where word <> all ('{insert,update,delete}') limit 1;
    if found or words is null then
        perform outbox.refuse(format('operations is %L', operations),
                              'name one or several of insert, update and delete, for example ''insert or update''');
    end if;
    return array(select word from unnest('{insert,update,delete}'::text[]) as word where word = any (words));
end
$$;

-- The rows for the expressions of an operation: of a table, or without one, of the statement that fired the trigger.
create function outbox.capture_rows(operation text, with_old boolean, source regclass default null) returns text
language sql
as $$
    select case
        when operation = 'delete' then format('(select * from %s) as old', coalesce(source::text, 'old_rows'))
        when not with_old then format('(select * from %s) as new', coalesce(source::text, 'new_rows'))
        when source is not null then format('(select * from %1$s) as old, (select * from %1$s) as new', source)
        else 'pairs, lateral (select (pairs.o).*) as old, lateral (select (pairs.n).*) as new'
    end
$$;

-- Why an expression is no column of outbox.message, or null. It is planned, never run.
create function outbox.capture_fault(argument text, expression text, rows text, out fault text, out cure text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $sql$
begin
    rows := rows || ', (select text ''INSERT'' as tg_op) as t';
    -- An expression that WHERE accepts has no aggregates and gives one value a row.
    execute format(E'explain select from %s where (%s\n)%s', rows, expression, case when argument <> 'when' then ' is null' end);
    if argument <> 'when' then
        execute format(E'explain insert into outbox.message (%I) select %s\n from %s', argument, expression, rows);
    end if;
exception
    when insufficient_privilege then
        raise;
    when others then
        get stacked diagnostics fault = message_text, cure = pg_exception_hint;
        fault := regexp_replace(fault, E' at or near "[^\n]*\n.*', '');  -- one line, only of the user's text
        cure := coalesce(nullif(cure, ''), case
            when sqlstate in ('42703', '42702') then
                'an argument is an SQL expression over the row: write a column as new.column, or old.column,'
                ' and a constant in quotes of its own, for example topic => $$''order_paid''$$'
            when sqlstate = '42P01' then
                'an insert has the row new, a delete has old, an update has both;'
                ' where operations need different expressions, install a capture of another name for each'
            when sqlstate = '42883' then
                'write what is not PostgreSQL''s own with its schema, for example public.my_function(new.column)'
        end);
end
$sql$;

-- Refuses bad expressions of a capture for one operation. Returns whether one needs an update's old row.
create function outbox.check_expressions(place text, source regclass, operation text, expressions jsonb) returns boolean
language plpgsql
as $$
declare
    with_old boolean := operation = 'update' and exists (
        select from jsonb_each_text(expressions) as e,
                    outbox.capture_fault(e.key, e.value, outbox.capture_rows(operation, false, source)) as f
        where f.fault is not null);
    bad      record;
begin
    select e.key as argument, f.fault, f.cure into bad
    from jsonb_each_text(expressions) as e,
         outbox.capture_fault(e.key, e.value, outbox.capture_rows(operation, with_old, source)) as f
    where f.fault is not null
    order by e.key <> 'topic'
    limit 1;
    if found then
        perform outbox.refuse(format('%s%s, on %s: %s', place, bad.argument, operation, bad.fault), bad.cure);
    end if;
    return with_old;
end
$$;

-- What a trigger function selects: names and types of enqueue's arguments. Null counts as left out.
create function outbox.capture_columns(e jsonb) returns text
language sql
as $$
    select string_agg(format(c.template, coalesce('(' || (e ->> c.name) || E'\n)', 'null')) || ' as ' || c.name,
                      E',\n            ' order by c.place)
    from (values
        (1, 'topic', '%s::text'), (2, 'payload', '%s::json'), (3, 'key', '%s::text'), (4, 'headers', 'coalesce(%s::json, ''{}'')'),
        (5, 'target', 'nullif(%s::json::text, ''null'')::json'), (6, 'message_id', '%s::uuid'), (7, 'dedup_key', '%s::text'),
        (8, 'available_at', '%s::timestamptz'), (9, 'priority', 'coalesce(%s::integer, 0)'), (10, 'tenant', '%s::text')
    ) as c (place, name, template)
$$;

create function outbox.capture_body(name text, operation text, expressions jsonb, with_old boolean) returns text
language sql
as $$
    with part as (
        select
            -- PostgreSQL records an update's old and new row together, so their positions pair them. A full join behind a fence is
            -- never a nested loop, also in a plan for few rows.
            case when with_old then 'with pairs as materialized (
        select o, n
        from (select row_number() over () as place, old_rows as o from old_rows) as a
        full join (select row_number() over () as place, new_rows as n from new_rows) as b using (place)
        order by place
    )
    ' else '' end as pairs,
            case when with_old then 'if (select count(*) from old_rows) <> (select count(*) from new_rows) then
        perform outbox.refuse(place || ''a trigger of the table dropped rows that moved between partitions'',
                              ''old and new rows cannot be paired; write the capture without old'');
    end if;
    ' else '' end as check_pairs,
            outbox.capture_rows(operation, with_old) as rows,
            coalesce('(' || (expressions ->> 'when') || E'\n)', 'true') as wanted
    ),
    given as (
        select format('(
        select
            %1$s
        from %2$s
        where %3$s
        offset 0  -- each expression is evaluated once
    ) as g', outbox.capture_columns(expressions), p.rows, p.wanted) as g
        from part p
    )
    select format($body$-- Written by outbox.capture(), which also replaces it.
#variable_conflict use_column
declare
    place text := format('capture %%s of %%I.%%I: ', %1$L, tg_table_schema, tg_table_name);
    now   timestamptz := clock_timestamp();
    added bigint;
begin
    %2$s-- An insert of no rows would still wake the workers.
    if not exists (%3$sselect from %4$s where %5$s) then
        return null;
    end if;
    -- The rows come in the order in which they were written, and keep it.
    %6$s;
    return null;
end$body$,
        name, p.check_pairs, p.pairs, p.rows, p.wanted,
        case when expressions ? 'dedup_key' then
            -- Messages that may be repeats take enqueue's careful way, one by one.
            format('perform count(e.id) from (%1$sselect outbox.enqueue(g.topic, g.payload, g.key, g.headers, g.target, g.message_id,
                                              g.dedup_key, g.available_at, g.priority, g.tenant) as id
    from %2$s,
    outbox.check_message(place, g.topic, g.payload, g.key, g.headers, g.target, g.dedup_key, g.priority, g.tenant, interval ''0'', ''bury'', g.available_at, null)) as e',
                   p.pairs, g.g)
        else
            format('%1$sinsert into outbox.message
        (message_id, due_at, available_at, created_at, bytes, priority, topic, tenant, key, restricted, ready, target, headers, payload)
    select coalesce(g.message_id, outbox.new_message_id()), outbox.due_at(coalesce(g.available_at, now), g.priority, now), coalesce(g.available_at, now), now,
           bytes, g.priority, g.topic, g.tenant, outbox.scoped(g.key), g.tenant is not null or g.key is not null,
           g.tenant is null and g.key is null or coalesce(g.available_at <= now, true), g.target, g.headers, g.payload
    from %2$s,
    outbox.check_message(place, g.topic, g.payload, g.key, g.headers, g.target, null, g.priority, g.tenant, interval ''0'', ''bury'', g.available_at, null) as bytes%3$s',
                   p.pairs, g.g, case when expressions ? 'message_id' then E'\n    on conflict do nothing' else '' end)
            || case when expressions ? 'message_id' then
                -- If an id was there before, only the same message may be left out.
                format(E';\n    get diagnostics added = row_count;
    if added < (%1$sselect count(*) from %2$s where %3$s) then
        perform count(*) from (%1$sselect from %4$s, outbox.check_same(place, g.message_id, g.topic, g.target, g.payload) where g.message_id is not null) as e;
    end if', p.pairs, p.rows, p.wanted, g.g)
               else '' end
        end)
    from part p, given g
$$;

create function outbox.check_capture(source regclass, name text, topic text) returns void
language plpgsql
as $sql$
declare
    kind   "char";
    system boolean;
begin
    select c.relkind, c.relnamespace = m.relnamespace into kind, system
    from pg_class c, pg_class m
    where c.oid = source and m.oid = 'outbox.message'::regclass;
    if source is null or topic is null then
        perform outbox.refuse('a capture needs a source and a topic', 'topic is an SQL expression, for example $$''order_paid''$$');
    elsif kind not in ('r', 'p') then
        perform outbox.refuse(format('%s is not a table', source), 'capture the table that its rows are written to');
    elsif system then
        perform outbox.refuse(format('%s is the outbox''s own', source), 'capture a table of yours');
    elsif name is null or name !~ '^[a-z][a-z0-9_]{0,29}$' then
        perform outbox.refuse(format('name is %L', name), 'use 1 to 30 lower-case letters, digits and underscores, a letter first');
    end if;
end
$sql$;

-- Functions of tables that were dropped. If another transaction is creating a trigger, its function is not visible yet.
create function outbox.drop_unused_capture_functions() returns void
language plpgsql
as $$
declare
    unused regprocedure;
begin
    for unused in
        select p.oid
        from pg_proc p
        where p.pronamespace = (select c.relnamespace from pg_class c where c.oid = 'outbox.message'::regclass)
          and starts_with(p.prosrc, '-- Written by outbox.capture()')
          and pg_has_role(p.proowner, 'usage')
          and not exists (select from pg_trigger t where t.tgfoid = p.oid)
    loop
        execute format('drop function %s', unused);
    end loop;
end
$$;

create function outbox.write_capture(
    source regclass, name text, operation text, with_old boolean, body text, definition jsonb
) returns void
language plpgsql
as $$
#variable_conflict use_variable
declare
    schema   regnamespace := (select c.relnamespace from pg_class c where c.oid = 'outbox.message'::regclass);
    trigger  text := format('%s_%s_%s', left((select n.nspname from pg_namespace n where n.oid = schema), 25), name, operation);
    function text := (select p.proname from outbox.capture_trigger t join pg_proc p on p.oid = t.function
                      where t.source = source and t.trigger = trigger);
    copy     integer := 1;
begin
    if function is null and exists (select from pg_trigger t where t.tgrelid = source and t.tgname = trigger) then
        perform outbox.refuse(format('%s has another trigger %s', source, trigger), 'give the capture another name');
    end if;
    while function is null loop  -- tables in different schemas may have the same name
        select concat_ws('_', 'captured', nullif(copy, 1), name, operation, 'on', c.relname)::name into function
        from pg_class c where c.oid = source;
        if exists (select from pg_proc p where p.pronamespace = schema and p.proname = function) then
            function := null;
            copy := copy + 1;
        end if;
    end loop;
    execute format('create or replace function outbox.%I() returns trigger language plpgsql security definer '
                   'set search_path = pg_catalog, pg_temp as %L', function, body);
    execute format('revoke all on function outbox.%I() from public', function);
    execute format('create or replace trigger %I after %s on %s referencing %s for each statement execute function outbox.%I(%L)',
                   trigger, operation, source,
                   concat_ws(' ', case when with_old or operation = 'delete' then 'old table as old_rows' end,
                                  case when operation <> 'delete' then 'new table as new_rows' end),
                   function, definition);
end
$$;

create function outbox.capture(
    source       regclass,
    topic        text,
    payload      text default null,
    key          text default null,
    headers      text default null,
    target       text default null,
    message_id   text default null,
    dedup_key    text default null,
    available_at text default null,
    priority     text default null,
    tenant       text default null,
    "when"       text default null,
    operations   text default 'insert',
    name         text default 'rows'
) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    given      jsonb := jsonb_strip_nulls(jsonb_build_object(
        'topic', topic, 'payload', payload, 'key', key, 'headers', headers, 'target', target, 'message_id', message_id,
        'dedup_key', dedup_key, 'available_at', available_at, 'priority', priority, 'tenant', tenant, 'when', "when"));
    definition jsonb := given || jsonb_build_object('name', name);
    wanted     text[] := outbox.capture_operations(operations);
    whole_row  jsonb;
    with_old   boolean[];
    bodies     text[];
    known      integer;
    same       integer;
begin
    perform outbox.check_capture(source, name, topic);
    perform outbox.lock_name('outbox.capture');
    for i in 1 .. cardinality(wanted) loop
        whole_row := jsonb_build_object('payload', case wanted[i] when 'delete' then 'to_json(old)' else 'to_json(new)' end);
        with_old[i] := outbox.check_expressions(format('capture %s of %s: ', name, source), source, wanted[i], given);
        bodies[i] := outbox.capture_body(name, wanted[i], whole_row || given, with_old[i]);
    end loop;
    select count(*),
           count(*) filter (where t.definition - 'installed_at' = definition
                              and t.body = bodies[array_position(wanted, t.operation)])
    into known, same
    from outbox.capture_trigger t where t.source = source and t.name = name;
    if known = same and same = cardinality(wanted) then
        return 'unchanged';
    end if;
    definition := definition || jsonb_build_object('installed_at', now());
    perform outbox.drop_captures(source, name,
                                 array(select unnest('{insert,update,delete}'::text[]) except select unnest(wanted)));
    for i in 1 .. cardinality(wanted) loop
        perform outbox.write_capture(source, name, wanted[i], with_old[i], bodies[i], definition);
    end loop;
    return case known when 0 then 'installed' else 'replaced' end;
end
$$;
comment on function outbox.capture is
    'Have each row written to a table enqueue a message, in its writer''s transaction. Arguments are SQL expressions over new and old.';

create function outbox.drop_captures(source regclass, name text, operations text[]) returns bigint
language plpgsql
as $$
#variable_conflict use_variable
declare
    dropped bigint := 0;
    trigger text;
begin
    for trigger in
        select t.trigger
        from outbox.capture_trigger t
        where t.source = source and t.name = name and t.operation = any (operations)
    loop
        execute format('drop trigger %I on %s', trigger, source);
        dropped := dropped + 1;
    end loop;
    perform outbox.drop_unused_capture_functions();
    return dropped;
end
$$;

create function outbox.uncapture(source regclass, name text default 'rows') returns boolean
language sql
set search_path = pg_catalog, pg_temp
as $$
    select outbox.lock_name('outbox.capture');
    select outbox.drop_captures(source, name, '{insert,update,delete}') > 0
$$;
comment on function outbox.uncapture is 'Remove a capture and return whether there was one. Messages that it enqueued stay.';
