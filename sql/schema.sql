-- Generated from sql/migrations by `make schema`: for reading, not for running.

CREATE SCHEMA outbox;

CREATE FUNCTION outbox.arguments(input json, args json) RETURNS text
    LANGUAGE plpgsql
    AS $$
begin
    if input is not null and args is not null then
        perform outbox.refuse('give either input (one argument) or args (a JSON array of several), not both');
    elsif args is not null and json_typeof(args) <> 'array' then
        perform outbox.refuse('args must be a JSON array', 'use input for a single argument');
    end if;
    return case when args is not null then 'many' when input is not null then 'one' else 'none' end;
end
$$;

CREATE FUNCTION outbox.broadcast() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform realtime.send('{}'::jsonb, 'wake', tg_table_schema, true);
    return null;
exception when others then
    raise warning 'outbox: no wake-up was broadcast: %', sqlerrm;
    return null;
end
$$;

COMMENT ON FUNCTION outbox.broadcast() IS 'Trigger: wakes the workers that listen to Supabase Realtime''s broadcasts. Made for enable_broadcast().';

CREATE FUNCTION outbox.cancel_workflow(workflow_id text, reason text DEFAULT NULL::text, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, 'cancel_workflow'), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'cancel_workflow', 'workflow_id', workflow_id, 'reason', reason, 'run_id', run_id, 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority)
$$;

COMMENT ON FUNCTION outbox.cancel_workflow(workflow_id text, reason text, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Ask a workflow to cancel itself once this transaction has committed. topic defaults to cancel_workflow.';

CREATE FUNCTION outbox.capture(source regclass, topic text, payload text DEFAULT NULL::text, key text DEFAULT NULL::text, headers text DEFAULT NULL::text, target text DEFAULT NULL::text, message_id text DEFAULT NULL::text, dedup_key text DEFAULT NULL::text, available_at text DEFAULT NULL::text, priority text DEFAULT NULL::text, "when" text DEFAULT NULL::text, operations text DEFAULT 'insert'::text, name text DEFAULT 'rows'::text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    given      jsonb := jsonb_strip_nulls(jsonb_build_object(
        'topic', topic, 'payload', payload, 'key', key, 'headers', headers, 'target', target, 'message_id', message_id,
        'dedup_key', dedup_key, 'available_at', available_at, 'priority', priority, 'when', "when"));
    definition jsonb := given || jsonb_build_object('name', name);
    wanted     text[] := outbox.capture_operations(operations);
    whole_row  jsonb;
    with_old   boolean[];
    bodies     text[];
    known      integer;
    same       integer;
begin
    perform outbox.check_capture(source, name, topic);
    perform pg_advisory_xact_lock(hashtextextended('outbox.capture', 0));
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

COMMENT ON FUNCTION outbox.capture(source regclass, topic text, payload text, key text, headers text, target text, message_id text, dedup_key text, available_at text, priority text, "when" text, operations text, name text) IS 'Have each row written to a table enqueue a message, in its writer''s transaction. Arguments are SQL expressions over new and old.';

CREATE FUNCTION outbox.capture_body(name text, operation text, expressions jsonb, with_old boolean) RETURNS text
    LANGUAGE sql
    AS $_$
    select format($body$-- Written by outbox.capture(), which also replaces it.
#variable_conflict use_column
declare
    place text := format('capture %%s of %%I.%%I: ', %1$L, tg_table_schema, tg_table_name);
    now   timestamptz := clock_timestamp();
begin
    %2$s-- An insert of nothing would still wake the workers.
    if not exists (%3$sselect from %4$s where %5$s) then
        return null;
    end if;
    -- The rows come in the order in which they were written, and nothing here changes it.
    %3$sinsert into outbox.message
        (message_id, due_at, available_at, created_at, priority, topic, key, dedup_key, target, headers, payload)
    select coalesce(g.message_id, outbox.new_message_id()), outbox.due_at(coalesce(g.available_at, now), g.priority, now),
           coalesce(g.available_at, now), now, g.priority, g.topic, g.key, g.dedup_key, g.target, g.headers, g.payload
    from (
        select
            %6$s
        from %4$s
        where %5$s
        offset 0  -- each expression is evaluated once
    ) as g, outbox.check_message(place, g.topic, g.headers, g.target, g.dedup_key, g.priority)%7$s;
    return null;
end$body$,
        name,
        case when with_old then
            'if (select count(*) from old_rows) <> (select count(*) from new_rows) then
        perform outbox.refuse(place || ''a trigger of the table dropped rows that moved between partitions'',
                              ''old and new rows cannot be told to belong together; write the capture without old'');
    end if;
    ' else '' end,
        -- PostgreSQL writes an update's old and new row down at once, so their position pairs them. A full join behind a fence is
        -- never a nested loop, however few rows the plan was made for.
        case when with_old then
            'with pairs as materialized (
        select o, n
        from (select row_number() over () as place, old_rows as o from old_rows) as a
        full join (select row_number() over () as place, new_rows as n from new_rows) as b using (place)
        order by place
    )
    ' else '' end,
        outbox.capture_rows(operation, with_old),
        coalesce('(' || (expressions ->> 'when') || E'\n)', 'true'),
        outbox.capture_columns(expressions),
        -- As with enqueue, an id or dedup_key that an unsettled message has already adds nothing.
        case when expressions ?| '{message_id,dedup_key}' then E'\n    on conflict do nothing' else '' end)
$_$;

CREATE FUNCTION outbox.capture_columns(e jsonb) RETURNS text
    LANGUAGE sql
    AS $$
    select string_agg(format(c.template, coalesce('(' || (e ->> c.name) || E'\n)', 'null')) || ' as ' || c.name,
                      E',\n            ' order by c.place)
    from (values
        (1, 'topic', '%s::text'), (2, 'payload', '%s::json'), (3, 'key', '%s::text'), (4, 'headers', 'coalesce(%s::jsonb, ''{}'')'),
        (5, 'target', 'nullif(%s::jsonb, ''null'')'), (6, 'message_id', '%s::uuid'), (7, 'dedup_key', '%s::text'),
        (8, 'available_at', '%s::timestamptz'), (9, 'priority', 'coalesce(%s::integer, 0)')
    ) as c (place, name, template)
$$;

CREATE FUNCTION outbox.capture_fault(argument text, expression text, rows text, OUT fault text, OUT cure text) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    rows := rows || ', (select text ''INSERT'' as tg_op) as t';
    -- What WHERE takes has no aggregates and gives one value a row.
    execute format(E'explain select from %s where (%s\n)%s', rows, expression, case when argument <> 'when' then ' is null' end);
    if argument <> 'when' then
        execute format(E'explain insert into outbox.message (%I) select %s\n from %s', argument, expression, rows);
    end if;
exception
    when insufficient_privilege then
        raise;
    when others then
        get stacked diagnostics fault = message_text, cure = pg_exception_hint;
        fault := regexp_replace(fault, ' at or near "[^\n]*\n.*', '');  -- one line, and nothing that is not the user's
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
$_$;

CREATE FUNCTION outbox.capture_operations(operations text) RETURNS text[]
    LANGUAGE plpgsql
    AS $$
declare
    words    text[] := regexp_split_to_array(lower(btrim(operations)), '\s*,\s*|\s+or\s+|\s+');
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

CREATE FUNCTION outbox.capture_rows(operation text, with_old boolean, source regclass DEFAULT NULL::regclass) RETURNS text
    LANGUAGE sql
    AS $_$
    select case
        when operation = 'delete' then format('(select * from %s) as old', coalesce(source::text, 'old_rows'))
        when not with_old then format('(select * from %s) as new', coalesce(source::text, 'new_rows'))
        when source is not null then format('(select * from %1$s) as old, (select * from %1$s) as new', source)
        else 'pairs, lateral (select (pairs.o).*) as old, lateral (select (pairs.n).*) as new'
    end
$_$;

CREATE FUNCTION outbox.check_capture(source regclass, name text, topic text) RETURNS void
    LANGUAGE plpgsql
    AS $_$
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
$_$;

CREATE FUNCTION outbox.check_expressions(place text, source regclass, operation text, expressions jsonb) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.check_message(place text, topic text, headers jsonb, target jsonb, dedup_key text, priority integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if target is not null then
        perform outbox.check_target(place, target);
    end if;
    if topic is null or topic = '' then
        perform outbox.refuse(place || 'topic must not be empty');
    elsif octet_length(topic) > 255 then
        perform outbox.refuse(format('%stopic is %s bytes long, the limit is 255', place, octet_length(topic)));
    elsif priority is null or priority not between 0 and 9 then
        perform outbox.refuse(format('%spriority is %s, it must lie between 0 and 9', place, coalesce(priority::text, 'null')),
                              '0 is ordinary; each step lets a message overtake those that came up to a minute earlier');
    elsif headers is null or jsonb_typeof(headers) <> 'object' then
        perform outbox.refuse(place || 'headers must be a JSON object', 'pass {} or leave them out for none');
    elsif dedup_key = '' then
        perform outbox.refuse(place || 'dedup_key must not be empty', 'pass null for none');
    end if;
end
$$;

CREATE FUNCTION outbox.check_names(place text, message json) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    stranger text;
begin
    if json_typeof(message) <> 'object' then
        perform outbox.refuse(place || 'a message must be a JSON object');
    end if;
    select name into stranger
    from json_object_keys(message) as name
    where name <> all ('{topic,payload,key,headers,target,message_id,dedup_key,available_at,priority}')
    limit 1;
    if found then
        perform outbox.refuse(format('%sunknown name %L', place, stranger),
                              'use topic, payload, key, headers, target, message_id, dedup_key, available_at or priority');
    end if;
end
$$;

CREATE FUNCTION outbox.check_object(place text, name text, value jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if jsonb_typeof(value) <> 'object' then
        perform outbox.refuse(format('%s: %s must be a JSON object', place, name));
    end if;
end
$$;

CREATE FUNCTION outbox.check_target(place text, target jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    operation   text := target ->> 'operation';
    workflow_id text := target ->> 'workflow_id';
begin
    if jsonb_typeof(target) <> 'object' then
        perform outbox.refuse(place || 'target must be a JSON object');
    elsif operation is null or operation not in
        ('start_workflow', 'signal_workflow', 'signal_with_start_workflow', 'cancel_workflow', 'terminate_workflow') then
        perform outbox.refuse(
            format('%starget.operation is %s', place, coalesce(quote_literal(operation), 'missing')),
            'use start_workflow, signal_workflow, signal_with_start_workflow, cancel_workflow or terminate_workflow');
    elsif workflow_id is null or workflow_id = '' then
        perform outbox.refuse(format('%s%s: workflow_id must not be empty', place, operation),
                              'derive it from your data, for example org-bootstrap-42: it is what makes the start happen once');
    elsif octet_length(workflow_id) > 1000 then
        perform outbox.refuse(format('%s%s: workflow_id is %s bytes long, the limit is 1000',
                                     place, operation, octet_length(workflow_id)));
    elsif operation in ('start_workflow', 'signal_with_start_workflow') and coalesce(target ->> 'workflow', '') = '' then
        perform outbox.refuse(format('%s%s: workflow (the workflow type) must not be empty', place, operation));
    elsif operation in ('signal_workflow', 'signal_with_start_workflow') and coalesce(target ->> 'signal', '') = '' then
        perform outbox.refuse(format('%s%s: signal (the signal name) must not be empty', place, operation));
    end if;
    perform outbox.check_word(place || operation, 'id_reuse_policy', target ->> 'id_reuse_policy',
                              '{reject_duplicate,allow_duplicate,allow_duplicate_failed_only}');
    perform outbox.check_word(place || operation, 'id_conflict_policy', target ->> 'id_conflict_policy',
                              '{fail,use_existing,terminate_existing}');
    perform outbox.check_word(place || operation, 'on_duplicate', target ->> 'on_duplicate', '{accept,reject}');
    perform outbox.check_object(place || operation, 'retry_policy', target -> 'retry_policy');
    perform outbox.check_object(place || operation, 'memo', target -> 'memo');
    perform outbox.check_object(place || operation, 'search_attributes', target -> 'search_attributes');
end
$$;

CREATE FUNCTION outbox.check_values(place text, message json) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    perform (message ->> 'message_id')::uuid, (message ->> 'available_at')::timestamptz, (message ->> 'priority')::integer,
            (message -> 'headers')::jsonb, (message -> 'target')::jsonb;
exception when data_exception then
    perform outbox.refuse(place || sqlerrm);
end
$$;

CREATE FUNCTION outbox.check_word(place text, name text, value text, words text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if value <> all (words) then
        perform outbox.refuse(format('%s: %s is %L', place, name, value), 'use ' || array_to_string(words, ', '));
    end if;
end
$$;

CREATE FUNCTION outbox.create_history_partitions(days_ahead integer, now timestamp with time zone DEFAULT now()) RETURNS SETOF text
    LANGUAGE plpgsql
    SET lock_timeout TO '10s'
    AS $_$
declare
    first date := (now at time zone 'UTC')::date;
    day   date;
    part  text;
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox.history', 0));
    for day in select generate_series(first, first + days_ahead, interval '1 day')::date loop
        part := 'history_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('outbox.' || part) is not null;
        -- A settle that had chosen the default partition before this one was attached would be refused by it: let those that run
        -- come to their end, and those that come wait. Readers go on.
        lock table only outbox.history in share row exclusive mode;
        execute format('create table outbox.%I (like outbox.history including all)', part);
        -- A day that began before its partition existed has rows in the default partition: they move along.
        execute format(
            'with moved as (delete from outbox.history_default where settled_at >= %1$L and settled_at < %2$L returning *)
             insert into outbox.%3$I select * from moved',
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC', part);
        execute format('alter table outbox.history attach partition outbox.%I for values from (%L) to (%L)',
                       part, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
        return next part;
    end loop;
end
$_$;

COMMENT ON FUNCTION outbox.create_history_partitions(days_ahead integer, now timestamp with time zone) IS 'Create the missing daily partitions of history from today to days_ahead days from now, and return their names.';

CREATE FUNCTION outbox.drop_captures(source regclass, name text, operations text[]) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.drop_history_partitions(keep_days integer, now timestamp with time zone DEFAULT now()) RETURNS SETOF text
    LANGUAGE plpgsql
    SET lock_timeout TO '1s'
    AS $_$
declare
    part text;
begin
    if keep_days < 1 then
        perform outbox.refuse(format('keep_days is %s, it must be at least 1', keep_days));
    end if;
    perform pg_advisory_xact_lock(hashtextextended('outbox.history', 0));
    for part in
        select c.relname
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox.history'::regclass
          and c.relname ~ '^history_[0-9]{8}$'
          and to_date(right(c.relname, 8), 'YYYYMMDD') < (now at time zone 'UTC')::date - keep_days
        order by c.relname
    loop
        execute format('drop table outbox.%I', part);
        return next part;
    end loop;
    delete from outbox.history_default where settled_at < now - make_interval(days => keep_days);
end
$_$;

COMMENT ON FUNCTION outbox.drop_history_partitions(keep_days integer, now timestamp with time zone) IS 'Drop the daily partitions that ended more than keep_days days ago, and return their names.';

CREATE FUNCTION outbox.drop_unused_capture_functions() RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.due_at(available_at timestamp with time zone, priority integer, now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    -- Priority is a head start: a message of priority p that is available at once takes its place among those that came up to
    -- p minutes before it. Nothing starves, because nothing enqueued later than that can overtake.
    select case when available_at > now then available_at else now - make_interval(secs => 60 * priority) end
$$;

CREATE FUNCTION outbox.enable_broadcast(enabled boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    drop trigger if exists broadcast on outbox.message;
    if not enabled then
        return;
    end if;
    if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
        perform outbox.refuse('this database has no function realtime.send(jsonb, text, text, boolean)',
                              'broadcast from database needs Supabase Realtime; use postgres_changes, LISTEN or polling');
    end if;
    create trigger broadcast after insert on outbox.message
    for each statement execute function outbox.broadcast();
end
$$;

COMMENT ON FUNCTION outbox.enable_broadcast(enabled boolean) IS 'Have every enqueue broadcast a wake-up through Supabase Realtime, or stop it.';

CREATE FUNCTION outbox.enqueue(topic text, payload json DEFAULT NULL::json, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, target jsonb DEFAULT NULL::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
    now   timestamptz := clock_timestamp();
    start timestamptz := coalesce(available_at, now);
    id    uuid := coalesce(message_id, outbox.new_message_id());
    taken uuid;
begin
    perform outbox.check_message('', topic, headers, target, dedup_key, priority);
    if message_id is null and dedup_key is null then
        insert into outbox.message as m (message_id, due_at, available_at, created_at, priority, topic, key, target, headers, payload)
        values (id, outbox.due_at(start, priority, now), start, now, priority, topic, key, target, headers, payload);
        return id;
    end if;
    loop
        insert into outbox.message as m
            (message_id, due_at, available_at, created_at, priority, topic, key, dedup_key, target, headers, payload)
        values (id, outbox.due_at(start, priority, now), start, now, priority, topic, key, dedup_key, target, headers, payload)
        on conflict do nothing
        returning m.message_id into taken;
        if found then
            return taken;
        end if;
        -- The row that stands in the way may be settled before it can be read: then there is room again.
        select m.message_id into taken
        from outbox.message m
        where m.message_id = id or m.dedup_key = dedup_key
        order by m.message_id = id desc
        limit 1;
        if found then
            return taken;
        end if;
    end loop;
end
$$;

COMMENT ON FUNCTION outbox.enqueue(topic text, payload json, key text, headers jsonb, target jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Enqueue one message in this transaction and return its id. An id or dedup_key that an unsettled message already has returns that message''s id and adds nothing.';

CREATE FUNCTION outbox.enqueue_many(messages json) RETURNS SETOF uuid
    LANGUAGE plpgsql
    AS $$
begin
    if messages is null or json_typeof(messages) <> 'array' then
        perform outbox.refuse('messages must be a JSON array of objects',
                              'each object takes the names of enqueue''s parameters: [{"topic": "…", "payload": {…}}, …]');
    end if;
    return query
    with given as materialized (
        select
            e.place,
            outbox.new_message_id() as new_id,
            (e.message ->> 'message_id')::uuid as message_id,
            e.message ->> 'topic' as topic,
            e.message -> 'payload' as payload,
            e.message ->> 'key' as key,
            coalesce((e.message -> 'headers')::jsonb, '{}') as headers,
            nullif((e.message -> 'target')::jsonb, 'null') as target,
            e.message ->> 'dedup_key' as dedup_key,
            (e.message ->> 'available_at')::timestamptz as available_at,
            coalesce((e.message ->> 'priority')::integer, 0) as priority,
            clock_timestamp() as now,
            -- A message that may meet its like takes enqueue's careful way, and then all do, to keep their order.
            bool_and(e.message ->> 'message_id' is null and e.message ->> 'dedup_key' is null) over () as all_new
        from json_array_elements(messages) with ordinality as e (message, place),
             outbox.check_names(format('messages[%s]: ', e.place - 1), e.message)
    ),
    checked as materialized (
        select g.*
        from given g,
             outbox.check_message(format('messages[%s]: ', g.place - 1), g.topic, g.headers, g.target, g.dedup_key, g.priority)
    ),
    added as (
        insert into outbox.message (message_id, due_at, available_at, created_at, priority, topic, key, target, headers, payload)
        select c.new_id, outbox.due_at(coalesce(c.available_at, c.now), c.priority, c.now), coalesce(c.available_at, c.now), c.now,
               c.priority, c.topic, c.key, c.target, c.headers, c.payload
        from checked c
        where c.all_new
        order by c.place
    )
    select case when c.all_new then c.new_id
                else outbox.enqueue(c.topic, c.payload, c.key, c.headers, c.target, c.message_id, c.dedup_key, c.available_at, c.priority)
           end
    from checked c
    order by c.place;
exception when data_exception then
    if sqlstate <> '22023' then  -- a value that its type does not take: find out whose
        perform outbox.check_values(format('messages[%s]: ', e.place - 1), e.message)
        from json_array_elements(messages) with ordinality as e (message, place);
    end if;
    raise;
end
$$;

COMMENT ON FUNCTION outbox.enqueue_many(messages json) IS 'Enqueue a JSON array of messages in one statement and return their ids in its order. Each object takes the names of enqueue''s parameters.';

CREATE FUNCTION outbox.new_message_id() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$
    -- UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. Sorts by time, so the primary key grows at its end.
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

COMMENT ON FUNCTION outbox.new_message_id() IS 'A new message id: a time-ordered UUID (version 7).';

CREATE FUNCTION outbox.present(name text, value jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select case when value is null then '{}' else jsonb_build_object(name, value) end
$$;

CREATE FUNCTION outbox.probe() RETURNS void
    LANGUAGE sql
    AS $$
    select pg_notify(relnamespace::regnamespace::text || '_wakeup', 'probe') from pg_class where oid = 'outbox.message'::regclass
$$;

COMMENT ON FUNCTION outbox.probe() IS 'Sends a notification that wakes nobody and proves to listeners that notifications arrive.';

CREATE FUNCTION outbox.refuse(fault text, cure text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if cure is null then
        raise exception using errcode = 'invalid_parameter_value', message = 'outbox: ' || fault;
    end if;
    raise exception using errcode = 'invalid_parameter_value', message = 'outbox: ' || fault, hint = cure;
end
$$;

CREATE FUNCTION outbox.ring() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if pg_try_advisory_xact_lock(hashtextextended(tg_table_schema || '.notifies', 0))
       or not pg_try_advisory_xact_lock_shared(hashtextextended(tg_table_schema || '.unannounced', 0)) then
        perform pg_notify(tg_table_schema || '_wakeup', '');
    end if;
    return null;
end
$$;

COMMENT ON FUNCTION outbox.ring() IS 'Trigger: wakes the workers that listen, once the transaction commits.';

CREATE FUNCTION outbox.seconds(name text, duration interval) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE
    AS $$
begin
    if duration < interval '0' then
        perform outbox.refuse(format('%s must not be negative, it is %s', name, duration));
    end if;
    return round(extract(epoch from duration), 6);
end
$$;

CREATE FUNCTION outbox.set_switch(name text, value jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if set_switch.value is null then
        delete from outbox.control c where c.name = set_switch.name;
    else
        insert into outbox.control as c (name, value) values (set_switch.name, set_switch.value)
        on conflict on constraint control_pkey do update
            set value = excluded.value, changed_at = now(), changed_by = session_user;
    end if;
end
$$;

COMMENT ON FUNCTION outbox.set_switch(name text, value jsonb) IS 'Set a switch for every worker; null removes it. The names are in the documentation of operations.';

CREATE FUNCTION outbox.signal_with_start_workflow(workflow text, workflow_id text, signal text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, signal_input json DEFAULT NULL::json, signal_args json DEFAULT NULL::json, task_queue text DEFAULT NULL::text, namespace text DEFAULT NULL::text, id_reuse_policy text DEFAULT NULL::text, execution_timeout interval DEFAULT NULL::interval, run_timeout interval DEFAULT NULL::interval, task_timeout interval DEFAULT NULL::interval, start_delay interval DEFAULT NULL::interval, retry_policy jsonb DEFAULT NULL::jsonb, memo jsonb DEFAULT NULL::jsonb, search_attributes jsonb DEFAULT NULL::jsonb, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, workflow), key => key, headers => headers,
        payload => json_build_object(
            'args', case outbox.arguments(input, args) when 'one' then json_build_array(input) else coalesce(args, '[]') end,
            'signal_args', case outbox.arguments(signal_input, signal_args)
                           when 'one' then json_build_array(signal_input) else coalesce(signal_args, '[]') end),
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'signal_with_start_workflow', 'workflow', workflow, 'workflow_id', workflow_id, 'signal', signal,
            'task_queue', task_queue, 'namespace', namespace, 'id_reuse_policy', id_reuse_policy,
            'execution_timeout_s', outbox.seconds('execution_timeout', execution_timeout),
            'run_timeout_s', outbox.seconds('run_timeout', run_timeout),
            'task_timeout_s', outbox.seconds('task_timeout', task_timeout),
            'start_delay_s', outbox.seconds('start_delay', start_delay)))
            || outbox.present('retry_policy', retry_policy) || outbox.present('memo', memo)
            || outbox.present('search_attributes', search_attributes),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority)
$$;

COMMENT ON FUNCTION outbox.signal_with_start_workflow(workflow text, workflow_id text, signal text, input json, args json, signal_input json, signal_args json, task_queue text, namespace text, id_reuse_policy text, execution_timeout interval, run_timeout interval, task_timeout interval, start_delay interval, retry_policy jsonb, memo jsonb, search_attributes jsonb, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Signal a workflow and start it first if it does not run, once this transaction has committed. topic defaults to the workflow type.';

CREATE FUNCTION outbox.signal_workflow(workflow_id text, signal text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, signal), payload => coalesce(input, args), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'signal_workflow', 'workflow_id', workflow_id, 'signal', signal, 'run_id', run_id,
            'arguments', outbox.arguments(input, args), 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority)
$$;

COMMENT ON FUNCTION outbox.signal_workflow(workflow_id text, signal text, input json, args json, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Signal a workflow once this transaction has committed. topic defaults to the signal name.';

CREATE FUNCTION outbox.start_workflow(workflow text, workflow_id text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, task_queue text DEFAULT NULL::text, namespace text DEFAULT NULL::text, id_reuse_policy text DEFAULT NULL::text, id_conflict_policy text DEFAULT NULL::text, on_duplicate text DEFAULT NULL::text, execution_timeout interval DEFAULT NULL::interval, run_timeout interval DEFAULT NULL::interval, task_timeout interval DEFAULT NULL::interval, start_delay interval DEFAULT NULL::interval, retry_policy jsonb DEFAULT NULL::jsonb, memo jsonb DEFAULT NULL::jsonb, search_attributes jsonb DEFAULT NULL::jsonb, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, workflow), payload => coalesce(input, args), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'start_workflow', 'workflow', workflow, 'workflow_id', workflow_id,
            'arguments', outbox.arguments(input, args), 'task_queue', task_queue, 'namespace', namespace,
            'id_reuse_policy', id_reuse_policy, 'id_conflict_policy', id_conflict_policy, 'on_duplicate', on_duplicate,
            'execution_timeout_s', outbox.seconds('execution_timeout', execution_timeout),
            'run_timeout_s', outbox.seconds('run_timeout', run_timeout),
            'task_timeout_s', outbox.seconds('task_timeout', task_timeout),
            'start_delay_s', outbox.seconds('start_delay', start_delay)))
            || outbox.present('retry_policy', retry_policy) || outbox.present('memo', memo)
            || outbox.present('search_attributes', search_attributes),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority)
$$;

COMMENT ON FUNCTION outbox.start_workflow(workflow text, workflow_id text, input json, args json, task_queue text, namespace text, id_reuse_policy text, id_conflict_policy text, on_duplicate text, execution_timeout interval, run_timeout interval, task_timeout interval, start_delay interval, retry_policy jsonb, memo jsonb, search_attributes jsonb, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Start a workflow once this transaction has committed. input is its one argument, args a JSON array of several. topic defaults to the workflow type.';

CREATE FUNCTION outbox.tell_switch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    perform pg_notify(tg_table_schema || '_wakeup', 'control');
    return null;
end
$$;

COMMENT ON FUNCTION outbox.tell_switch() IS 'Trigger: has the workers that listen read the control table, once the transaction commits.';

CREATE FUNCTION outbox.terminate_workflow(workflow_id text, reason text DEFAULT NULL::text, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, 'terminate_workflow'), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'terminate_workflow', 'workflow_id', workflow_id, 'reason', reason, 'run_id', run_id, 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority)
$$;

COMMENT ON FUNCTION outbox.terminate_workflow(workflow_id text, reason text, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer) IS 'Terminate a workflow once this transaction has committed. topic defaults to terminate_workflow.';

CREATE FUNCTION outbox.uncapture(source regclass, name text DEFAULT 'rows'::text) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pg_advisory_xact_lock(hashtextextended('outbox.capture', 0));
    select outbox.drop_captures(source, name, '{insert,update,delete}') > 0
$$;

COMMENT ON FUNCTION outbox.uncapture(source regclass, name text) IS 'Remove a capture and return whether there was one. Messages that it enqueued stay.';

CREATE FUNCTION outbox.wake() RETURNS void
    LANGUAGE sql
    AS $$
    select pg_notify(relnamespace::regnamespace::text || '_wakeup', '') from pg_class where oid = 'outbox.message'::regclass
$$;

COMMENT ON FUNCTION outbox.wake() IS 'Wakes the workers that listen, once the transaction commits.';

CREATE FUNCTION outbox.write_capture(source regclass, name text, operation text, with_old boolean, body text, definition jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
    schema   regnamespace := (select c.relnamespace from pg_class c where c.oid = 'outbox.message'::regclass);
    trigger  text := format('%s_%s_%s', left(schema::text, 25), name, operation);
    function text := (select p.proname from outbox.capture_trigger t join pg_proc p on p.oid = t.function
                      where t.source = source and t.trigger = trigger);
    copy     integer := 1;
begin
    if function is null and exists (select from pg_trigger t where t.tgrelid = source and t.tgname = trigger) then
        perform outbox.refuse(format('%s has another trigger %s', source, trigger), 'give the capture another name');
    end if;
    while function is null loop  -- tables of several schemas may have one name
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

CREATE TABLE outbox.message (
    message_id uuid NOT NULL,
    seq bigint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    available_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
    lease_token bigint,
    worker_id bigint,
    deliveries integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    topic text NOT NULL,
    key text,
    dedup_key text,
    target jsonb,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    payload json,
    errors jsonb DEFAULT '[]'::jsonb NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_analyze_scale_factor='0.1', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE outbox.message IS 'Unsettled messages: waiting, scheduled, or leased to a worker.';

COMMENT ON COLUMN outbox.message.message_id IS 'Identity for ever; the request id towards Temporal.';

COMMENT ON COLUMN outbox.message.seq IS 'The order in which the database numbered the messages. Gaps are normal; it says nothing about commit order.';

COMMENT ON COLUMN outbox.message.due_at IS 'When a worker may claim the row, and the order of claiming. While a worker holds the row it is the end of the lease, so an abandoned row falls due by itself.';

COMMENT ON COLUMN outbox.message.available_at IS 'When the producer wants it delivered at the earliest.';

COMMENT ON COLUMN outbox.message.lease_token IS 'Token of the claim that holds the row; null while nobody does.';

COMMENT ON COLUMN outbox.message.deliveries IS 'Claims since the last known outcome: rises when a worker dies with the message.';

COMMENT ON COLUMN outbox.message.attempts IS 'How often the message itself failed. Outages, throttling and lost leases do not count.';

COMMENT ON COLUMN outbox.message.errors IS 'What went wrong so far: the first error and the latest nineteen.';

CREATE VIEW outbox.capture_trigger AS
 SELECT (tgrelid)::regclass AS source,
    (definition ->> 'name'::text) AS name,
        CASE
            WHEN (((tgtype)::integer & 4) > 0) THEN 'insert'::text
            WHEN (((tgtype)::integer & 16) > 0) THEN 'update'::text
            ELSE 'delete'::text
        END AS operation,
    tgname AS trigger,
    tgfoid AS function,
    prosrc AS body,
    definition,
    (tgenabled <> 'D'::"char") AS enabled
   FROM ( SELECT t_1.oid,
            t_1.tgrelid,
            t_1.tgparentid,
            t_1.tgname,
            t_1.tgfoid,
            t_1.tgtype,
            t_1.tgenabled,
            t_1.tgisinternal,
            t_1.tgconstrrelid,
            t_1.tgconstrindid,
            t_1.tgconstraint,
            t_1.tgdeferrable,
            t_1.tginitdeferred,
            t_1.tgnargs,
            t_1.tgattr,
            t_1.tgargs,
            t_1.tgqual,
            t_1.tgoldtable,
            t_1.tgnewtable,
            p.prosrc,
            (convert_from(SUBSTRING(t_1.tgargs FROM 1 FOR (length(t_1.tgargs) - 1)), getdatabaseencoding()))::jsonb AS definition
           FROM (pg_trigger t_1
             JOIN pg_proc p ON ((p.oid = t_1.tgfoid)))
          WHERE ((p.pronamespace = ( SELECT c.relnamespace
                   FROM pg_class c
                  WHERE (c.oid = ('outbox.message'::regclass)::oid))) AND starts_with(p.prosrc, '-- Written by outbox.capture()'::text) AND (t_1.tgnargs = 1))
         OFFSET 0) t;

COMMENT ON VIEW outbox.capture_trigger IS 'The triggers of the captures. People read outbox.captures.';

CREATE VIEW outbox.captures AS
 SELECT source,
    name,
    array_agg(operation ORDER BY (array_position('{insert,update,delete}'::text[], operation))) AS operations,
    (definition ->> 'topic'::text) AS topic,
    (definition ->> 'payload'::text) AS payload,
    (definition ->> 'key'::text) AS key,
    (definition ->> 'headers'::text) AS headers,
    (definition ->> 'target'::text) AS target,
    (definition ->> 'message_id'::text) AS message_id,
    (definition ->> 'dedup_key'::text) AS dedup_key,
    (definition ->> 'available_at'::text) AS available_at,
    (definition ->> 'priority'::text) AS priority,
    (definition ->> 'when'::text) AS "when",
    bool_and(enabled) AS enabled,
    ((definition ->> 'installed_at'::text))::timestamp with time zone AS installed_at
   FROM outbox.capture_trigger
  GROUP BY source, name, definition;

COMMENT ON VIEW outbox.captures IS 'The tables whose rows become messages, and the SQL expressions that say how.';

CREATE TABLE outbox.control (
    name text NOT NULL,
    value jsonb NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_by text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT control_name_check CHECK ((name ~ '^[a-z][a-z0-9_.]*$'::text))
);

COMMENT ON TABLE outbox.control IS 'Switches for every running worker at once. Workers read it with each heartbeat.';

CREATE TABLE outbox.dead_letter (
    message_id uuid NOT NULL,
    seq bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    available_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    died_at timestamp with time zone NOT NULL,
    worker_id bigint,
    deliveries integer NOT NULL,
    attempts integer NOT NULL,
    priority smallint NOT NULL,
    reason text NOT NULL,
    topic text NOT NULL,
    key text,
    dedup_key text,
    target jsonb,
    headers jsonb NOT NULL,
    payload json,
    errors jsonb NOT NULL,
    CONSTRAINT dead_letter_reason_check CHECK ((reason = ANY (ARRAY['rejected'::text, 'exhausted'::text, 'quarantined'::text])))
);

COMMENT ON TABLE outbox.dead_letter IS 'Messages that will not be delivered unless somebody puts them back, whole, with every error.';

COMMENT ON COLUMN outbox.dead_letter.reason IS 'rejected: it can never succeed as it is. exhausted: it failed max_attempts times. quarantined: workers died with it max_deliveries times.';

CREATE TABLE outbox.history (
    message_id uuid NOT NULL,
    seq bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    available_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone NOT NULL,
    worker_id bigint,
    deliveries integer NOT NULL,
    attempts integer NOT NULL,
    outcome text NOT NULL,
    topic text NOT NULL,
    key text,
    dedup_key text,
    operation text,
    workflow text,
    workflow_id text,
    run_id text,
    CONSTRAINT history_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'duplicate'::text])))
)
PARTITION BY RANGE (settled_at);

COMMENT ON TABLE outbox.history IS 'Delivered messages without their payload (Temporal has it), in daily partitions by settled_at, in UTC.';

COMMENT ON COLUMN outbox.history.outcome IS '`duplicate`: another message had started that workflow id before.';

CREATE TABLE outbox.history_default (
    message_id uuid CONSTRAINT history_message_id_not_null NOT NULL,
    seq bigint CONSTRAINT history_seq_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    available_at timestamp with time zone CONSTRAINT history_available_at_not_null NOT NULL,
    claimed_at timestamp with time zone CONSTRAINT history_claimed_at_not_null NOT NULL,
    settled_at timestamp with time zone CONSTRAINT history_settled_at_not_null NOT NULL,
    worker_id bigint,
    deliveries integer CONSTRAINT history_deliveries_not_null NOT NULL,
    attempts integer CONSTRAINT history_attempts_not_null NOT NULL,
    outcome text CONSTRAINT history_outcome_not_null NOT NULL,
    topic text CONSTRAINT history_topic_not_null NOT NULL,
    key text,
    dedup_key text,
    operation text,
    workflow text,
    workflow_id text,
    run_id text,
    CONSTRAINT history_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'duplicate'::text])))
);

CREATE SEQUENCE outbox.lease_token
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

COMMENT ON SEQUENCE outbox.lease_token IS 'Fencing tokens, one for each claim. A settle that carries an older token than the row finds no row.';

CREATE TABLE outbox.worker (
    worker_id bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    stopped_at timestamp with time zone,
    state text DEFAULT 'starting'::text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT worker_state_check CHECK ((state = ANY (ARRAY['starting'::text, 'running'::text, 'holding'::text, 'draining'::text, 'stopped'::text])))
);

COMMENT ON TABLE outbox.worker IS 'Worker processes. seen_at is their heartbeat; stopped_at is set by an orderly shutdown only.';

CREATE VIEW outbox.message_life AS
 SELECT m.message_id,
        CASE
            WHEN ((m.lease_token IS NOT NULL) AND (m.due_at > now())) THEN 'processing'::text
            WHEN (m.due_at > now()) THEN 'scheduled'::text
            ELSE 'pending'::text
        END AS status,
    m.topic,
    m.key,
    (m.target ->> 'operation'::text) AS operation,
    (m.target ->> 'workflow'::text) AS workflow,
    (m.target ->> 'workflow_id'::text) AS workflow_id,
    NULL::text AS run_id,
    w.name AS worker,
    m.created_at AS enqueued_at,
    m.available_at,
    m.claimed_at,
    NULL::timestamp with time zone AS settled_at,
        CASE
            WHEN ((m.lease_token IS NULL) AND (m.due_at > now())) THEN m.due_at
            ELSE NULL::timestamp with time zone
        END AS next_try_at,
    m.deliveries,
    m.attempts,
    NULL::text AS outcome,
    ((m.errors -> '-1'::integer) ->> 'detail'::text) AS last_error
   FROM (outbox.message m
     LEFT JOIN outbox.worker w ON (((w.worker_id = m.worker_id) AND (m.lease_token IS NOT NULL))))
UNION ALL
 SELECT h.message_id,
    'completed'::text AS status,
    h.topic,
    h.key,
    h.operation,
    h.workflow,
    h.workflow_id,
    h.run_id,
    w.name AS worker,
    h.created_at AS enqueued_at,
    h.available_at,
    h.claimed_at,
    h.settled_at,
    NULL::timestamp with time zone AS next_try_at,
    h.deliveries,
    h.attempts,
    h.outcome,
    NULL::text AS last_error
   FROM (outbox.history h
     LEFT JOIN outbox.worker w ON ((w.worker_id = h.worker_id)))
UNION ALL
 SELECT d.message_id,
    'failed'::text AS status,
    d.topic,
    d.key,
    (d.target ->> 'operation'::text) AS operation,
    (d.target ->> 'workflow'::text) AS workflow,
    (d.target ->> 'workflow_id'::text) AS workflow_id,
    NULL::text AS run_id,
    w.name AS worker,
    d.created_at AS enqueued_at,
    d.available_at,
    d.claimed_at,
    d.died_at AS settled_at,
    NULL::timestamp with time zone AS next_try_at,
    d.deliveries,
    d.attempts,
    d.reason AS outcome,
    ((d.errors -> '-1'::integer) ->> 'detail'::text) AS last_error
   FROM (outbox.dead_letter d
     LEFT JOIN outbox.worker w ON ((w.worker_id = d.worker_id)));

COMMENT ON VIEW outbox.message_life IS 'Each message with its status (pending, scheduled, processing, completed, failed), its worker, its workflow and run, and the time of each step.';

ALTER TABLE outbox.message ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.message_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE outbox.worker ALTER COLUMN worker_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.worker_worker_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY outbox.history ATTACH PARTITION outbox.history_default DEFAULT;

ALTER TABLE ONLY outbox.control
    ADD CONSTRAINT control_pkey PRIMARY KEY (name);

ALTER TABLE ONLY outbox.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.message
    ADD CONSTRAINT message_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY outbox.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (worker_id);

CREATE INDEX dead_letter_died ON outbox.dead_letter USING btree (died_at);

CREATE INDEX history_message ON ONLY outbox.history USING btree (message_id);

CREATE INDEX history_default_message_id_idx ON outbox.history_default USING btree (message_id);

CREATE UNIQUE INDEX message_dedup ON outbox.message USING btree (dedup_key) WHERE (dedup_key IS NOT NULL);

CREATE INDEX message_due ON outbox.message USING btree (due_at, seq);

ALTER INDEX outbox.history_message ATTACH PARTITION outbox.history_default_message_id_idx;

CREATE TRIGGER switch AFTER INSERT OR DELETE OR UPDATE ON outbox.control FOR EACH STATEMENT EXECUTE FUNCTION outbox.tell_switch();

CREATE TRIGGER wakeup AFTER INSERT ON outbox.message FOR EACH STATEMENT EXECUTE FUNCTION outbox.ring();
