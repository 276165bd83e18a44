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

CREATE FUNCTION outbox.call_next() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    -- Most have nobody asleep behind them, and to see that is much cheaper than an update that finds none.
    perform from outbox.message n where n.key = old.key and n.due_at = 'infinity' and n.parked is null order by n.seq limit 1;
    if not found then
        return null;
    end if;
    -- One that somebody holds is passed over, so that no settlement waits for whoever cancels: the one called in its place will find
    -- it before itself, and call it (claim_gated.sql).
    update outbox.message m
    set due_at = least(clock_timestamp(), m.available_at), ready = true
    where m.message_id = (select n.message_id from outbox.message n
                          where n.key = old.key and n.due_at = 'infinity' and n.parked is null
                          order by n.seq limit 1
                          for no key update skip locked)
      and not exists (select from outbox.message l where l.key = old.key and l.in_flight);
    return null;
end
$$;

COMMENT ON FUNCTION outbox.call_next() IS 'Trigger: a message with a key has left, whoever took it away; the next of its key may come.';

CREATE FUNCTION outbox.call_sleepers() RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    called bigint;
begin
    -- A net beneath call_next, for transactions that saw an older state of the table than they changed (repeatable read), or locked the
    -- only one to be called. Keys are looked at one by one through the index, however many messages they have.
    with recursive sleeper as (
        (select m.key from outbox.message m where m.key is not null order by m.key limit 1)
        union all
        select (select m.key from outbox.message m where m.key > s.key order by m.key limit 1) from sleeper s where s.key is not null
    ),
    awake as (
        update outbox.message m
        set due_at = least(clock_timestamp(), m.available_at), ready = true
        where m.message_id = any (array(
            select f.message_id
            from sleeper s,
                 lateral (select * from outbox.message f where f.key = s.key order by f.seq limit 1) f
            where f.due_at = 'infinity' and f.parked is null and f.lease_token is null
              and not exists (select from outbox.message l where l.key = s.key and l.in_flight)))
        returning m.message_id
    )
    select count(*) into called from awake;
    if called > 0 then
        perform outbox.wake();
    end if;
    return called;
end
$$;

COMMENT ON FUNCTION outbox.call_sleepers() IS 'Call the first message of each key that waits although nothing of the key is in flight. Workers do it now and then.';

CREATE FUNCTION outbox.cancel(message_id uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
begin
    with cancelled as (
        delete from outbox.message m
        where m.message_id = message_id and (m.leased_until is null or m.leased_until <= clock_timestamp())
        returning m.*
    )
    insert into outbox.history as h
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key,
         dedup_key, operation, workflow, workflow_id)
    select c.message_id, c.seq, c.created_at, c.available_at, c.claimed_at, clock_timestamp(), c.worker_id, c.deliveries, c.attempts,
           'cancelled', c.topic, c.key, c.dedup_key, c.target ->> 'operation', c.target ->> 'workflow', c.target ->> 'workflow_id'
    from cancelled c;
    if found then
        perform outbox.wake();  -- another of its key may come now
        return true;
    end if;
    return (select false from outbox.message m where m.message_id = message_id);
end
$$;

COMMENT ON FUNCTION outbox.cancel(message_id uuid) IS 'Take an unsettled message back. True: it will not be delivered from now on. False: a worker holds it, and it may be on its way. Null: no unsettled message has this id.';

CREATE FUNCTION outbox.cancel_workflow(workflow_id text, reason text DEFAULT NULL::text, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, 'cancel_workflow'), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'cancel_workflow', 'workflow_id', workflow_id, 'reason', reason, 'run_id', run_id, 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry)
$$;

COMMENT ON FUNCTION outbox.cancel_workflow(workflow_id text, reason text, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Ask a workflow to cancel itself once this transaction has committed. topic defaults to cancel_workflow.';

CREATE FUNCTION outbox.capture(source regclass, topic text, payload text DEFAULT NULL::text, key text DEFAULT NULL::text, headers text DEFAULT NULL::text, target text DEFAULT NULL::text, message_id text DEFAULT NULL::text, dedup_key text DEFAULT NULL::text, available_at text DEFAULT NULL::text, priority text DEFAULT NULL::text, tenant text DEFAULT NULL::text, "when" text DEFAULT NULL::text, operations text DEFAULT 'insert'::text, name text DEFAULT 'rows'::text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION outbox.capture(source regclass, topic text, payload text, key text, headers text, target text, message_id text, dedup_key text, available_at text, priority text, tenant text, "when" text, operations text, name text) IS 'Have each row written to a table enqueue a message, in its writer''s transaction. Arguments are SQL expressions over new and old.';

CREATE FUNCTION outbox.capture_body(name text, operation text, expressions jsonb, with_old boolean) RETURNS text
    LANGUAGE sql
    AS $_$
    with part as (
        select
            -- PostgreSQL writes an update's old and new row down at once, so their position pairs them. A full join behind a fence
            -- is never a nested loop, however few rows the plan was made for.
            case when with_old then 'with pairs as materialized (
        select o, n
        from (select row_number() over () as place, old_rows as o from old_rows) as a
        full join (select row_number() over () as place, new_rows as n from new_rows) as b using (place)
        order by place
    )
    ' else '' end as pairs,
            case when with_old then 'if (select count(*) from old_rows) <> (select count(*) from new_rows) then
        perform outbox.refuse(place || ''a trigger of the table dropped rows that moved between partitions'',
                              ''old and new rows cannot be told to belong together; write the capture without old'');
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
begin
    %2$s-- An insert of nothing would still wake the workers.
    if not exists (%3$sselect from %4$s where %5$s) then
        return null;
    end if;
    -- The rows come in the order in which they were written, and nothing here changes it.
    %6$s;
    return null;
end$body$,
        name, p.check_pairs, p.pairs, p.rows, p.wanted,
        case when expressions ? 'dedup_key' then
            -- A message that may have been delivered lately takes enqueue's careful way, one by one.
            format('perform count(e.id) from (%1$sselect outbox.enqueue(g.topic, g.payload, g.key, g.headers, g.target, g.message_id,
                                              g.dedup_key, g.available_at, g.priority, g.tenant) as id
    from %2$s,
    outbox.check_message(place, g.topic, g.payload, g.key, g.headers, g.target, g.dedup_key, g.priority, g.tenant, interval ''0'', ''bury'')) as e',
                   p.pairs, g.g)
        else
            format('%1$sinsert into outbox.message
        (message_id, due_at, available_at, created_at, priority, topic, tenant, key, gated, ready, target, headers, payload)
    select coalesce(g.message_id, outbox.new_message_id()), outbox.due_at(coalesce(g.available_at, now), g.priority, now), coalesce(g.available_at, now), now,
           g.priority, g.topic, g.tenant, g.key, g.tenant is not null or g.key is not null,
           g.tenant is null and g.key is null or coalesce(g.available_at <= now, true), g.target, g.headers, g.payload
    from %2$s,
    outbox.check_message(place, g.topic, g.payload, g.key, g.headers, g.target, null, g.priority, g.tenant, interval ''0'', ''bury'')%3$s',
                   p.pairs, g.g, case when expressions ? 'message_id' then E'\n    on conflict do nothing' else '' end)
        end)
    from part p, given g
$_$;

CREATE FUNCTION outbox.capture_columns(e jsonb) RETURNS text
    LANGUAGE sql
    AS $$
    select string_agg(format(c.template, coalesce('(' || (e ->> c.name) || E'\n)', 'null')) || ' as ' || c.name,
                      E',\n            ' order by c.place)
    from (values
        (1, 'topic', '%s::text'), (2, 'payload', '%s::json'), (3, 'key', '%s::text'), (4, 'headers', 'coalesce(%s::jsonb, ''{}'')'),
        (5, 'target', 'nullif(%s::jsonb, ''null'')'), (6, 'message_id', '%s::uuid'), (7, 'dedup_key', '%s::text'),
        (8, 'available_at', '%s::timestamptz'), (9, 'priority', 'coalesce(%s::integer, 0)'), (10, 'tenant', '%s::text')
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

CREATE FUNCTION outbox.check_message(place text, topic text, payload json, key text, headers jsonb, target jsonb, dedup_key text, priority integer, tenant text, dedup_window interval, on_expiry text) RETURNS void
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
    elsif octet_length(payload::text) > 2096128 then  -- Temporal takes 2 MiB, with what the payload's encoding adds
        perform outbox.refuse(format('%spayload is %s bytes long, the limit is 2096128', place, octet_length(payload::text)),
                              'store it elsewhere and send its address');
    elsif pg_column_size(headers) > 16384 and octet_length(headers::text) > 65536 then  -- the size of the row's form is known without writing it
        perform outbox.refuse(format('%sheaders are %s bytes long, the limit is 65536', place, octet_length(headers::text)));
    elsif on_expiry is null or on_expiry not in ('bury', 'discard') then
        perform outbox.refuse(format('%son_expiry is %s', place, coalesce(quote_literal(on_expiry), 'null')), 'use bury or discard');
    elsif dedup_window is null or dedup_window < interval '0' then
        perform outbox.refuse(format('%sdedup_window is %s, it must not be negative', place, coalesce(dedup_window::text, 'null')));
    end if;
    if key is not null or dedup_key is not null or tenant is not null then
        perform outbox.check_name(place, 'key', key), outbox.check_name(place, 'dedup_key', dedup_key), outbox.check_name(place, 'tenant', tenant);
    end if;
end
$$;

CREATE FUNCTION outbox.check_name(place text, name text, value text) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if value = '' then
        perform outbox.refuse(format('%s%s must not be empty', place, name), 'pass null for none');
    elsif octet_length(value) > 1000 then  -- an index entry has room for no more than 2700 bytes
        perform outbox.refuse(format('%s%s is %s bytes long, the limit is 1000', place, name, octet_length(value)));
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
    where name <> all ('{topic,payload,key,headers,target,message_id,dedup_key,available_at,priority,tenant,commit_order,dedup_window,expires_at,on_expiry}')
    limit 1;
    if found then
        perform outbox.refuse(format('%sunknown name %L', place, stranger),
                              'use the names of the parameters of outbox.enqueue');
    end if;
end
$$;

CREATE FUNCTION outbox.check_names_of_target(place text, target jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    name text;
begin
    foreach name in array '{workflow,signal,task_queue,namespace,run_id,reason}'::text[] loop
        if octet_length(target ->> name) > 1000 then
            perform outbox.refuse(format('%s: %s is %s bytes long, the limit is 1000', place, name, octet_length(target ->> name)));
        end if;
    end loop;
    if octet_length(target ->> 'memo') > 1048576 then
        perform outbox.refuse(format('%s: memo is %s bytes long, the limit is 1048576', place, octet_length(target ->> 'memo')));
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

CREATE FUNCTION outbox.check_pattern(pattern text) RETURNS void
    LANGUAGE plpgsql
    AS $_$
begin
    if pattern is null or pattern = '' or pattern ~ '\*.' or pattern ~ '[^.]\*$' then
        perform outbox.refuse(format('topic is %s', coalesce(quote_literal(pattern), 'null')), 'use an exact topic, or prefix.*');
    end if;
end
$_$;

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
    elsif target ->> 'namespace' = '' then
        perform outbox.refuse(format('%s%s: namespace must not be empty', place, operation), 'leave it out, or pass null, for the worker''s own');
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
    perform outbox.check_names_of_target(place || operation, target);
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
declare
    name text;
begin
    name := 'message_id'; perform (message ->> name)::uuid;
    name := 'available_at'; perform (message ->> name)::timestamptz;
    name := 'priority'; perform (message ->> name)::integer;
    name := 'headers'; perform (message -> name)::jsonb;
    name := 'target'; perform (message -> name)::jsonb;
    name := 'commit_order'; perform (message ->> name)::boolean;
    name := 'dedup_window'; perform (message ->> name)::interval;
    name := 'expires_at'; perform (message ->> name)::timestamptz;
exception when data_exception then
    perform outbox.refuse(format('%s%s: %s', place, name, sqlerrm));
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
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '10s'
    AS $_$
declare
    first date := (now at time zone 'UTC')::date;
    day   date;
    part  text;
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox.history', 0));
    perform set_config('lock_timeout', '2s', true);  -- until the end of this function
    for day in select generate_series(first, first + days_ahead, interval '1 day')::date loop
        part := 'history_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('outbox.' || part) is not null;
        -- A settle that had chosen the default partition before this one was attached would be refused by it: let those that run
        -- come to their end, and those that come wait. Readers go on, but attaching waits for those of the default partition.
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
    tenant text,
    key text,
    dedup_key text,
    dedup_window interval,
    expires_at timestamp with time zone,
    on_expiry text,
    target jsonb,
    headers jsonb NOT NULL,
    payload json,
    errors jsonb NOT NULL,
    CONSTRAINT dead_letter_reason_check CHECK ((reason = ANY (ARRAY['rejected'::text, 'exhausted'::text, 'quarantined'::text, 'expired'::text])))
);

COMMENT ON TABLE outbox.dead_letter IS 'Messages that will not be delivered unless somebody puts them back, whole, with every error.';

COMMENT ON COLUMN outbox.dead_letter.reason IS 'rejected: it can never succeed as it is. exhausted: it failed max_attempts times. quarantined: workers died with it max_deliveries times. expired: its turn came after expires_at.';

CREATE FUNCTION outbox.dead_letters(topic text DEFAULT NULL::text, kind text DEFAULT NULL::text, reason text DEFAULT NULL::text, key text DEFAULT NULL::text, older_than interval DEFAULT NULL::interval, newer_than interval DEFAULT NULL::interval, message_ids uuid[] DEFAULT NULL::uuid[]) RETURNS SETOF outbox.dead_letter
    LANGUAGE sql STABLE
    AS $$
    select d.*
    from outbox.dead_letter d
    where (dead_letters.topic is null or outbox.matches(dead_letters.topic, d.topic))
      and (dead_letters.kind is null or d.errors -> -1 ->> 'kind' = dead_letters.kind)
      and (dead_letters.reason is null or d.reason = dead_letters.reason)
      and (dead_letters.key is null or d.key = dead_letters.key)
      and (dead_letters.older_than is null or d.died_at < now() - dead_letters.older_than)
      and (dead_letters.newer_than is null or d.died_at >= now() - dead_letters.newer_than)
      and (dead_letters.message_ids is null or d.message_id = any (dead_letters.message_ids))
$$;

COMMENT ON FUNCTION outbox.dead_letters(topic text, kind text, reason text, key text, older_than interval, newer_than interval, message_ids uuid[]) IS 'Dead letters by topic (exact, or prefix.*), kind of their last error, reason, key, age since their death, and message ids.';

CREATE FUNCTION outbox.delete_stray_history(before timestamp with time zone, at_most bigint DEFAULT NULL::bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with deleted as (
        delete from outbox.history_default h
        where h.ctid = any (array(
            select o.ctid from outbox.history_default o where o.settled_at < before limit at_most for update skip locked))
        returning h.seq
    )
    select count(*) from deleted
$$;

COMMENT ON FUNCTION outbox.delete_stray_history(before timestamp with time zone, at_most bigint) IS 'Delete history settled before then that no daily partition took, at most so many, and return how many.';

CREATE FUNCTION outbox.delivered_lately(dedup_key text) RETURNS uuid
    LANGUAGE sql STABLE
    AS $$
    select d.message_id from outbox.delivered_key d where d.dedup_key = delivered_lately.dedup_key and d.until > clock_timestamp()
$$;

COMMENT ON FUNCTION outbox.delivered_lately(dedup_key text) IS 'The message that was delivered under this dedup_key less than its window ago.';

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

CREATE FUNCTION outbox.drop_history_partition(part text, before timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox.history', 0));
    if not exists (select from outbox.old_history_partitions(before) o where o.part = drop_history_partition.part) then
        return false;  -- somebody was faster
    end if;
    execute format('drop table outbox.%I', part);
    return true;
end
$$;

COMMENT ON FUNCTION outbox.drop_history_partition(part text, before timestamp with time zone) IS 'Drop one of old_history_partitions, and return whether it was there.';

CREATE FUNCTION outbox.drop_history_partitions(keep_days integer, now timestamp with time zone DEFAULT now()) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    before timestamptz := ((now at time zone 'UTC')::date - keep_days)::timestamp at time zone 'UTC';
    part   text;
begin
    if keep_days < 1 then
        perform outbox.refuse(format('keep_days is %s, it must be at least 1', keep_days));
    end if;
    for part in select o.part from outbox.old_history_partitions(before) o loop
        if outbox.drop_history_partition(part, before) then
            return next part;
        end if;
    end loop;
    perform outbox.delete_stray_history(now - make_interval(days => keep_days));
end
$$;

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

CREATE FUNCTION outbox.enqueue(topic text, payload json DEFAULT NULL::json, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, target jsonb DEFAULT NULL::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    now   timestamptz := clock_timestamp();
    start timestamptz := coalesce(available_at, now);
    due   timestamptz;
    gated boolean := tenant is not null or key is not null;
    ready boolean;
    id    uuid := coalesce(message_id, outbox.new_message_id());
    taken uuid;
    earlier uuid;
begin
    perform outbox.check_message('', topic, payload, key, headers, target, dedup_key, priority, tenant, dedup_window, on_expiry);
    due := outbox.due_at(start, priority, now);
    ready := not gated or start <= now;
    if commit_order and key is not null then
        perform outbox.lock_key(key);
    end if;
    if message_id is null and dedup_key is null then
        insert into outbox.message as m
            (message_id, due_at, available_at, created_at, priority, topic, tenant, key, gated, ready, expires_at, on_expiry, target, headers, payload)
        values (id, due, start, now, priority, topic, tenant, key, gated, ready, expires_at,
                case when expires_at is not null then on_expiry end, target, headers, payload);
        return id;
    end if;
    loop
        begin
            insert into outbox.message as m
                (message_id, due_at, available_at, created_at, priority, topic, tenant, key, gated, ready, dedup_key, dedup_window,
                 expires_at, on_expiry, target, headers, payload)
            values (id, due, start, now, priority, topic, tenant, key, gated, ready,
                    dedup_key, case when dedup_key is not null then dedup_window end,
                    expires_at, case when expires_at is not null then on_expiry end, target, headers, payload)
            on conflict do nothing
            returning m.message_id into taken;
            if found then
                -- After the insert, not before: whoever had the key until then has left it with the commit that delivered him, and
                -- this statement sees that commit.
                earlier := case when dedup_key is not null then outbox.delivered_lately(dedup_key) end;
                if earlier is null then
                    return taken;
                end if;
                raise exception using errcode = 'OBDUP';  -- takes the insert back
            end if;
        exception when sqlstate 'OBDUP' then
            return earlier;
        end;
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

COMMENT ON FUNCTION outbox.enqueue(topic text, payload json, key text, headers jsonb, target jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Enqueue one message in this transaction and return its id. An id or dedup_key that an unsettled message has, or a dedup_key delivered less than its window ago, returns that message''s id and adds nothing.';

CREATE FUNCTION outbox.enqueue_many(messages json) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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
            r.message_id,
            r.topic,
            e.message -> 'payload' as payload,  -- as it was written, which a record would not keep
            r.key,
            coalesce(r.headers, '{}') as headers,
            r.target,
            r.dedup_key,
            r.available_at,
            coalesce(r.priority, 0) as priority,
            r.tenant,
            coalesce(r.commit_order, false) as commit_order,
            coalesce(r.dedup_window, '1 hour') as dedup_window,
            r.expires_at,
            coalesce(r.on_expiry, 'bury') as on_expiry,
            clock_timestamp() as now,
            -- A message that may meet its like, or waits for a key's lock, takes enqueue's careful way, and then all do, to keep their order.
            bool_and(r.message_id is null and r.dedup_key is null and coalesce(not r.commit_order, true)) over () as all_new
        from json_array_elements(messages) with ordinality as e (message, place),
             outbox.check_names(format('messages[%s]: ', e.place - 1), e.message),
             json_to_record(e.message) as r (
                 message_id uuid, topic text, key text, headers jsonb, target jsonb, dedup_key text, available_at timestamptz,
                 priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamptz, on_expiry text)
    ),
    checked as materialized (
        select g.*
        from given g,
             outbox.check_message(format('messages[%s]: ', g.place - 1), g.topic, g.payload, g.key, g.headers, g.target, g.dedup_key,
                                  g.priority, g.tenant, g.dedup_window, g.on_expiry)
    ),
    added as (
        insert into outbox.message
            (message_id, due_at, available_at, created_at, priority, topic, tenant, key, gated, ready, expires_at, on_expiry, target, headers, payload)
        select c.new_id, outbox.due_at(coalesce(c.available_at, c.now), c.priority, c.now), coalesce(c.available_at, c.now), c.now,
               c.priority, c.topic, c.tenant, c.key,
               c.tenant is not null or c.key is not null, c.tenant is null and c.key is null or coalesce(c.available_at <= c.now, true), c.expires_at,
               case when c.expires_at is not null then c.on_expiry end, c.target, c.headers, c.payload
        from checked c
        where c.all_new
        order by c.place
    )
    select case when c.all_new then c.new_id
                else outbox.enqueue(c.topic, c.payload, c.key, c.headers, c.target, c.message_id, c.dedup_key, c.available_at, c.priority,
                                c.tenant, c.commit_order, c.dedup_window, c.expires_at, c.on_expiry)
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

CREATE FUNCTION outbox.fault_of_message(message json) RETURNS text
    LANGUAGE plpgsql
    AS $$
declare
    fault text;
    cure  text;
begin
    perform outbox.check_names('', message);
    perform outbox.check_values('', message);
    perform outbox.check_message(
        '', message ->> 'topic', message -> 'payload', message ->> 'key', coalesce((message -> 'headers')::jsonb, '{}'),
        nullif((message -> 'target')::jsonb, 'null'), message ->> 'dedup_key', coalesce((message ->> 'priority')::integer, 0),
        message ->> 'tenant', coalesce((message ->> 'dedup_window')::interval, '1 hour'), coalesce(message ->> 'on_expiry', 'bury'));
    return null;
exception when data_exception or program_limit_exceeded then
    get stacked diagnostics fault = message_text, cure = pg_exception_hint;
    return concat_ws('; ', regexp_replace(fault, '^outbox: ', ''), nullif(cure, ''));
end
$$;

COMMENT ON FUNCTION outbox.fault_of_message(message json) IS 'Why enqueue_many would refuse a message; null if it would not. Changes nothing.';

CREATE FUNCTION outbox.grant_roles() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    schema  text := (select c.relnamespace::regnamespace::text from pg_class c where c.oid = 'outbox.message'::regclass);
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
            using hint = format('to have them, let somebody who may run: %s; and then run outbox migrate again',
                                (select string_agg(format('create role %I', m), '; ') from unnest(missing) m));
    end if;
end
$$;

COMMENT ON FUNCTION outbox.grant_roles() IS 'Make the roles of this schema that are missing, and give each the rights that it lacks. Every outbox migrate ends with it.';

CREATE FUNCTION outbox.lane(tenant text, key text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select coalesce('t' || tenant, 'k' || key, '-')
$$;

COMMENT ON FUNCTION outbox.lane(tenant text, key text) IS 'Lanes take turns at the gates: a tenant''s messages stand in one, without a tenant each key''s.';

CREATE FUNCTION outbox.limit_topic(topic text, rate double precision, burst integer DEFAULT NULL::integer) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
    wanted integer;
    was    boolean;
    rule   bigint := nextval('outbox.rule_id');
begin
    perform outbox.check_pattern(topic);
    if not rate between 0.0001 and 100000 then
        perform outbox.refuse(format('rate is %s messages a second, it must lie between 0.0001 and 100000', rate),
                              'pass null to lift the limit, or use pause');
    elsif not burst between 1 and 1000000 then
        perform outbox.refuse(format('burst is %s, it must lie between 1 and 1000000', burst));
    end if;
    wanted := coalesce(burst, greatest(1, ceil(rate))::integer);
    perform from outbox.topic_limit l where l.topic = limit_topic.topic for update;
    was := found;
    with before as (
        select l.* from outbox.topic_limit l where l.topic = limit_topic.topic
    ),
    lifted as (
        delete from outbox.topic_limit l using before b where l.topic = b.topic and limit_topic.rate is null
    ),
    changed as (
        insert into outbox.topic_limit as l (topic, rule_id, rate, burst)
        select limit_topic.topic, rule, limit_topic.rate, wanted where limit_topic.rate is not null
        on conflict on constraint topic_limit_pkey do update
            -- What was claimed counts on, so that setting limits again and again gives nobody a fresh burst.
            set rule_id = rule, rate = excluded.rate, burst = excluded.burst, given_until = '-infinity'
            where l.rate <> excluded.rate or l.burst <> excluded.burst
    )
    insert into outbox.ended_rule (rule_id)
    select b.rule_id from before b where limit_topic.rate is null or b.rate <> limit_topic.rate or b.burst <> wanted
    on conflict do nothing;
    perform outbox.wake();
    return was;
end
$$;

COMMENT ON FUNCTION outbox.limit_topic(topic text, rate double precision, burst integer) IS 'Claim at most `rate` messages a second of a topic (exact, or prefix.*), and `burst` at once (default: one second''s worth). A null rate lifts the limit. Returns whether there was one.';

CREATE FUNCTION outbox.lock_key(key text) RETURNS void
    LANGUAGE sql
    AS $$
    select pg_advisory_xact_lock(hashtextextended('outbox.key ' || key, 0))
$$;

COMMENT ON FUNCTION outbox.lock_key(key text) IS 'Holds other transactions that enqueue for this key in commit_order, so that the order of numbers is the order of commits.';

CREATE FUNCTION outbox.matches(pattern text, topic text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select case when right(pattern, 1) = '*' then starts_with(topic, left(pattern, -1)) else topic = pattern end
$$;

COMMENT ON FUNCTION outbox.matches(pattern text, topic text) IS 'Whether a topic is meant by a pattern: itself, prefix.*, or *.';

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

CREATE FUNCTION outbox.old_history_partitions(before timestamp with time zone) RETURNS TABLE(part text, begins timestamp with time zone, ends timestamp with time zone)
    LANGUAGE sql STABLE
    AS $_$
    select d.part, d.day at time zone 'UTC', (d.day + interval '1 day') at time zone 'UTC'
    from (
        select c.relname::text as part, to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp as day
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox.history'::regclass and c.relname ~ '^history_[0-9]{8}$'
    ) d
    where d.day + interval '1 day' <= before at time zone 'UTC'
    order by d.part
$_$;

COMMENT ON FUNCTION outbox.old_history_partitions(before timestamp with time zone) IS 'The daily partitions of history whose day was over by then, the oldest first.';

CREATE FUNCTION outbox.pause(topic text DEFAULT NULL::text, key text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if pause.topic is not null and pause.key is not null then
        perform outbox.refuse('give a topic or a key, not both', 'call pause for each');
    elsif pause.topic is not null then
        perform outbox.check_pattern(pause.topic);
    end if;
    insert into outbox.pause (topic, key) values (pause.topic, pause.key)
    on conflict do nothing;
end
$$;

COMMENT ON FUNCTION outbox.pause(topic text, key text) IS 'Deliver nothing any more, or nothing of a topic (exact, or prefix.*) or of a key, until resume is called likewise.';

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

CREATE FUNCTION outbox.resume(topic text DEFAULT NULL::text, key text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
    with over as (
        delete from outbox.pause p
        where p.topic is not distinct from resume.topic and p.key is not distinct from resume.key
        returning p.rule_id
    )
    insert into outbox.ended_rule (rule_id) select o.rule_id from over o;
    if found then
        perform outbox.wake();
        return true;
    end if;
    return false;
end
$$;

COMMENT ON FUNCTION outbox.resume(topic text, key text) IS 'End a pause of everything, of a topic or of a key. Returns whether there was one.';

CREATE FUNCTION outbox.rights() RETURNS TABLE(role text, privilege text, object text)
    LANGUAGE sql STABLE
    AS $$
    select role, privilege, object
    from (values
        -- What says which version the schema has, at every start.
        ('{producer,worker,reader}'::text[], '{select}'::text[], '{migration}'::text[]),

        ('{producer,worker}', '{execute}',
         '{enqueue, enqueue_many, start_workflow, signal_workflow, signal_with_start_workflow, cancel_workflow, terminate_workflow, cancel}'),
        -- These only compute, for the functions above and for those that captures write.
        ('{producer,worker}', '{execute}',
         '{arguments, seconds, present, refuse, new_message_id, due_at, lane, check_message, check_name, check_names, check_values,
           check_target, check_names_of_target, check_word, check_object}'),
        -- Who installs a capture needs more than these: the table, and `create` on the schema.
        ('{producer}', '{execute}',
         '{capture, uncapture, check_capture, check_expressions, capture_operations, capture_rows, capture_fault, capture_columns,
           capture_body, write_capture, drop_captures, drop_unused_capture_functions}'),

        ('{worker,reader}', '{select}',
         '{message, history, history_default, dead_letter, delivered_key, worker, control, pause, topic_limit, ended_rule, import, imported,
           message_life, capture_trigger, captures}'),
        ('{worker,reader}', '{execute}', '{dead_letters, matches, probe}'),

        ('{worker}', '{insert,update,delete}',
         '{message, dead_letter, delivered_key, worker, control, pause, topic_limit, ended_rule, import, imported}'),
        ('{worker}', '{insert}', '{history}'),
        ('{worker}', '{usage}', '{rule_id}'),
        ('{worker}', '{execute}',
         '{wake, take_from_limit, call_sleepers, create_history_partitions, old_history_partitions, drop_history_partition, drop_history_partitions,
           delete_stray_history, set_switch, pause, resume,
           check_pattern, limit_topic, fault_of_message}')
    ) as r (roles, privileges, objects), unnest(r.roles) as role, unnest(r.privileges) as privilege, unnest(r.objects) as object
$$;

COMMENT ON FUNCTION outbox.rights() IS 'What each role may do in this schema: tables, views, sequences and functions by their names. What is not told here is the owner''s alone.';

CREATE FUNCTION outbox.ring() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    perform pg_notify(tg_table_schema || '_wakeup', '');
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

CREATE FUNCTION outbox.signal_with_start_workflow(workflow text, workflow_id text, signal text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, signal_input json DEFAULT NULL::json, signal_args json DEFAULT NULL::json, task_queue text DEFAULT NULL::text, namespace text DEFAULT NULL::text, id_reuse_policy text DEFAULT NULL::text, execution_timeout interval DEFAULT NULL::interval, run_timeout interval DEFAULT NULL::interval, task_timeout interval DEFAULT NULL::interval, start_delay interval DEFAULT NULL::interval, retry_policy jsonb DEFAULT NULL::jsonb, memo jsonb DEFAULT NULL::jsonb, search_attributes jsonb DEFAULT NULL::jsonb, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
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
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry)
$$;

COMMENT ON FUNCTION outbox.signal_with_start_workflow(workflow text, workflow_id text, signal text, input json, args json, signal_input json, signal_args json, task_queue text, namespace text, id_reuse_policy text, execution_timeout interval, run_timeout interval, task_timeout interval, start_delay interval, retry_policy jsonb, memo jsonb, search_attributes jsonb, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Signal a workflow and start it first if it does not run, once this transaction has committed. topic defaults to the workflow type.';

CREATE FUNCTION outbox.signal_workflow(workflow_id text, signal text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, signal), payload => coalesce(input, args), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'signal_workflow', 'workflow_id', workflow_id, 'signal', signal, 'run_id', run_id,
            'arguments', outbox.arguments(input, args), 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry)
$$;

COMMENT ON FUNCTION outbox.signal_workflow(workflow_id text, signal text, input json, args json, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Signal a workflow once this transaction has committed. topic defaults to the signal name.';

CREATE FUNCTION outbox.start_workflow(workflow text, workflow_id text, input json DEFAULT NULL::json, args json DEFAULT NULL::json, task_queue text DEFAULT NULL::text, namespace text DEFAULT NULL::text, id_reuse_policy text DEFAULT NULL::text, id_conflict_policy text DEFAULT NULL::text, on_duplicate text DEFAULT NULL::text, execution_timeout interval DEFAULT NULL::interval, run_timeout interval DEFAULT NULL::interval, task_timeout interval DEFAULT NULL::interval, start_delay interval DEFAULT NULL::interval, retry_policy jsonb DEFAULT NULL::jsonb, memo jsonb DEFAULT NULL::jsonb, search_attributes jsonb DEFAULT NULL::jsonb, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
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
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry)
$$;

COMMENT ON FUNCTION outbox.start_workflow(workflow text, workflow_id text, input json, args json, task_queue text, namespace text, id_reuse_policy text, id_conflict_policy text, on_duplicate text, execution_timeout interval, run_timeout interval, task_timeout interval, start_delay interval, retry_policy jsonb, memo jsonb, search_attributes jsonb, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Start a workflow once this transaction has committed. input is its one argument, args a JSON array of several. topic defaults to the workflow type.';

CREATE FUNCTION outbox.take_from_limit(rule bigint, slotted bigint, fresh bigint, now timestamp with time zone, OUT slotted_taken bigint, OUT fresh_taken bigint, OUT slotted_from timestamp with time zone, OUT fresh_from timestamp with time zone, OUT step interval) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
    l      outbox.topic_limit;
    tokens bigint;
    earliest timestamptz;
begin
    select * into l from outbox.topic_limit t where t.rule_id = rule for update skip locked;
    if not found then  -- another claim is at it, or it is changed this very moment: ask again
        slotted_taken := 0;
        fresh_taken := 0;
        return;
    end if;
    if l.given_until > now and not exists (
        select from outbox.message m where m.parked = rule and not m.ready and m.lease_token is null) then
        l.given_until := now;  -- those who had the times until then were cancelled
    end if;
    step := make_interval(secs => 1 / l.rate);
    l.used_until := least(greatest(l.used_until, now), now + step * l.burst);
    tokens := greatest(0, l.burst - ceil(extract(epoch from l.used_until - now)::float8 * l.rate - 1e-6));
    slotted_taken := least(slotted, tokens);
    -- Nobody overtakes those who wait for a time that they were given.
    fresh_taken := case when l.given_until > now or slotted > tokens then 0 else least(fresh, tokens - slotted_taken) end;
    l.used_until := l.used_until + step * (slotted_taken + fresh_taken);
    earliest := greatest(now, l.used_until - step * (l.burst - 1)) - step;
    slotted_from := earliest;
    fresh_from := greatest(earliest + step * (slotted - slotted_taken), l.given_until);
    update outbox.topic_limit t
    set used_until = l.used_until,
        given_until = case when fresh > fresh_taken then fresh_from + step * (fresh - fresh_taken) else l.given_until end
    where t.rule_id = rule;
end
$$;

CREATE FUNCTION outbox.tell_switch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    perform pg_notify(tg_table_schema || '_wakeup', 'control');
    return null;
end
$$;

COMMENT ON FUNCTION outbox.tell_switch() IS 'Trigger: has the workers that listen read the control table, once the transaction commits.';

CREATE FUNCTION outbox.terminate_workflow(workflow_id text, reason text DEFAULT NULL::text, run_id text DEFAULT NULL::text, namespace text DEFAULT NULL::text, topic text DEFAULT NULL::text, key text DEFAULT NULL::text, headers jsonb DEFAULT '{}'::jsonb, message_id uuid DEFAULT NULL::uuid, dedup_key text DEFAULT NULL::text, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, tenant text DEFAULT NULL::text, commit_order boolean DEFAULT false, dedup_window interval DEFAULT '01:00:00'::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, on_expiry text DEFAULT 'bury'::text) RETURNS uuid
    LANGUAGE sql
    AS $$
    select outbox.enqueue(
        topic => coalesce(topic, 'terminate_workflow'), key => key, headers => headers,
        target => jsonb_strip_nulls(jsonb_build_object(
            'operation', 'terminate_workflow', 'workflow_id', workflow_id, 'reason', reason, 'run_id', run_id, 'namespace', namespace)),
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry)
$$;

COMMENT ON FUNCTION outbox.terminate_workflow(workflow_id text, reason text, run_id text, namespace text, topic text, key text, headers jsonb, message_id uuid, dedup_key text, available_at timestamp with time zone, priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamp with time zone, on_expiry text) IS 'Terminate a workflow once this transaction has committed. topic defaults to terminate_workflow.';

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

CREATE FUNCTION outbox.wanted_grants() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with here as (
        select c.relnamespace as oid, c.relnamespace::regnamespace::text as name from pg_class c where c.oid = 'outbox.message'::regclass
    ),
    owed as (
        select g.oid as grantee, g.rolname, r.role, r.privilege, r.object, here.oid as schema
        from here, outbox.rights() r
        join pg_roles g on g.rolname = (select name from here) || '_' || r.role
    )
    -- PostgreSQL lets everyone call a new function.
    select format('revoke execute on function %s from public', p.oid::regprocedure)
    from here
    join pg_proc p on p.pronamespace = here.oid
    where pg_has_role(p.proowner, 'usage')
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
    union all
    select distinct format('grant usage on schema %I to %I', here.name, o.rolname)
    from here, owed o
    where not has_schema_privilege(o.grantee, o.schema, 'usage')
    union all
    select format('grant execute on function %s to %I', p.oid::regprocedure, o.rolname)
    from owed o
    join pg_proc p on p.pronamespace = o.schema and p.proname = o.object
    where o.privilege = 'execute'
      and not exists (select from aclexplode(p.proacl) a where a.grantee = o.grantee)  -- what everyone may is revoked above
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
    -- Row-level security, which somebody may enable for Realtime's sake, hides every row from whoever has no policy; owners need none.
    select format('create policy %s on %s for %s to %I using (true)', o.role, c.oid::regclass,
                  case when bool_or(o.privilege <> 'select') then 'all' else 'select' end, o.rolname)
    from owed o
    join pg_class c on c.relnamespace = o.schema and c.relname = o.object
    where c.relkind in ('r', 'p') and o.privilege <> 'execute'
      and not exists (select from pg_policy y where y.polrelid = c.oid and y.polname = o.role)
    group by o.role, c.oid, o.rolname
$$;

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
    leased_until timestamp with time zone,
    lease_token bigint,
    worker_id bigint,
    deliveries integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    topic text NOT NULL,
    tenant text,
    key text,
    gated boolean DEFAULT false NOT NULL,
    ready boolean DEFAULT true NOT NULL,
    in_flight boolean DEFAULT false NOT NULL,
    parked bigint,
    dedup_key text,
    dedup_window interval,
    expires_at timestamp with time zone,
    on_expiry text,
    target jsonb,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    payload json,
    errors jsonb DEFAULT '[]'::jsonb NOT NULL,
    CONSTRAINT gated CHECK ((gated OR ((key IS NULL) AND (tenant IS NULL)))),
    CONSTRAINT message_on_expiry_check CHECK ((on_expiry = ANY (ARRAY['bury'::text, 'discard'::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_insert_scale_factor='0.05', autovacuum_analyze_scale_factor='0.1', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE outbox.message IS 'Unsettled messages: waiting, scheduled, or leased to a worker.';

COMMENT ON COLUMN outbox.message.message_id IS 'Identity for ever; the request id towards Temporal.';

COMMENT ON COLUMN outbox.message.seq IS 'The order in which the database numbered the messages. Gaps are normal; it says nothing about commit order.';

COMMENT ON COLUMN outbox.message.due_at IS 'When a worker may claim the row, and the order of claiming. Of gated messages that a worker holds: the end of the lease.';

COMMENT ON COLUMN outbox.message.available_at IS 'When the producer wants it delivered at the earliest.';

COMMENT ON COLUMN outbox.message.leased_until IS 'The end of the lease, null while no worker holds the row. An abandoned row is free again by itself.';

COMMENT ON COLUMN outbox.message.lease_token IS 'Fencing token of the claim that holds the row, null while nobody does: a settle that carries another finds no row. Random, so that no crash or failover repeats it.';

COMMENT ON COLUMN outbox.message.deliveries IS 'Claims since the last known outcome: rises when a worker dies with the message.';

COMMENT ON COLUMN outbox.message.attempts IS 'How often the message itself failed. Outages, throttling and lost leases do not count.';

COMMENT ON COLUMN outbox.message.tenant IS 'Whose message it is: tenants take turns.';

COMMENT ON COLUMN outbox.message.key IS 'Messages with the same key are delivered one at a time, in the order of seq.';

COMMENT ON COLUMN outbox.message.gated IS 'Whether it must pass gates, because it has a key or a tenant, or its topic was limited or paused.';

COMMENT ON COLUMN outbox.message.ready IS 'Of gated messages: whether it stands in its lane. Else it waits for due_at, for its turn, or for its worker.';

COMMENT ON COLUMN outbox.message.in_flight IS 'Of gated messages: whether a worker holds it. Of those with the same key, one.';

COMMENT ON COLUMN outbox.message.parked IS 'The rule that keeps it: a pause, or the limit that has given it the time in due_at.';

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
    (definition ->> 'tenant'::text) AS tenant,
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

CREATE TABLE outbox.delivered_key (
    dedup_key text NOT NULL,
    message_id uuid NOT NULL,
    until timestamp with time zone NOT NULL
);

COMMENT ON TABLE outbox.delivered_key IS 'Dedup keys of delivered messages, which keep their like away until the end of their window.';

CREATE TABLE outbox.ended_rule (
    rule_id bigint NOT NULL,
    ended_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone
);

COMMENT ON TABLE outbox.ended_rule IS 'Pauses and limits that are over, until the claims have brought back what is parked under them.';

COMMENT ON COLUMN outbox.ended_rule.seen_at IS 'When a claim first saw it: those that began later park nothing under it.';

CREATE TABLE outbox.history (
    message_id uuid NOT NULL,
    seq bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    available_at timestamp with time zone NOT NULL,
    claimed_at timestamp with time zone,
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
    namespace text,
    task_queue text,
    CONSTRAINT history_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'duplicate'::text, 'discarded'::text, 'cancelled'::text])))
)
PARTITION BY RANGE (settled_at);

COMMENT ON TABLE outbox.history IS 'Settled messages without their payload (Temporal has it), in daily partitions by settled_at, in UTC.';

COMMENT ON COLUMN outbox.history.outcome IS 'duplicate: another message had started that workflow id before. discarded: it expired, and was to be forgotten then. cancelled: by outbox.cancel.';

COMMENT ON COLUMN outbox.history.namespace IS 'Of deliveries: the namespace that the target named; null for the worker''s own, or its route''s.';

COMMENT ON COLUMN outbox.history.task_queue IS 'Of deliveries: the task queue that the target named; null for the worker''s own, or its route''s.';

CREATE TABLE outbox.history_default (
    message_id uuid CONSTRAINT history_message_id_not_null NOT NULL,
    seq bigint CONSTRAINT history_seq_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    available_at timestamp with time zone CONSTRAINT history_available_at_not_null NOT NULL,
    claimed_at timestamp with time zone,
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
    namespace text,
    task_queue text,
    CONSTRAINT history_outcome_check CHECK ((outcome = ANY (ARRAY['delivered'::text, 'duplicate'::text, 'discarded'::text, 'cancelled'::text])))
);

CREATE TABLE outbox.import (
    import_id bigint NOT NULL,
    name text NOT NULL,
    identity text NOT NULL,
    rolling_back boolean DEFAULT false NOT NULL,
    rollbacks integer DEFAULT 0 NOT NULL,
    begun_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT import_name_check CHECK ((name <> ''::text))
);

COMMENT ON TABLE outbox.import IS 'Imports, by the names that their mappings give them.';

COMMENT ON COLUMN outbox.import.identity IS 'The column of the source that tells its rows apart. It must not change between runs.';

COMMENT ON COLUMN outbox.import.rolling_back IS 'Whether a rollback is under way, or broke off: meanwhile no row is moved.';

COMMENT ON COLUMN outbox.import.rollbacks IS 'How many rollbacks have begun: a run that finds another number than it began with moves, or takes back, no more.';

ALTER TABLE outbox.import ALTER COLUMN import_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.import_import_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.imported (
    import_id bigint NOT NULL,
    identity text NOT NULL COLLATE pg_catalog."C",
    message_id uuid NOT NULL,
    namespace text DEFAULT ''::text NOT NULL,
    workflow_id text NOT NULL,
    workflow text NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE outbox.imported IS 'Rows that were moved, each with its message. While one stands here, it is not moved again.';

COMMENT ON COLUMN outbox.imported.namespace IS 'The namespace that the mapping names; empty for the worker''s own.';

CREATE TABLE outbox.worker (
    worker_id bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    stopped_at timestamp with time zone,
    state text DEFAULT 'starting'::text NOT NULL,
    presence bigint,
    present_at timestamp with time zone,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT worker_state_check CHECK ((state = ANY (ARRAY['starting'::text, 'running'::text, 'holding'::text, 'draining'::text, 'stopped'::text])))
);

COMMENT ON TABLE outbox.worker IS 'Worker processes. seen_at is their heartbeat; stopped_at is set by an orderly shutdown only.';

COMMENT ON COLUMN outbox.worker.presence IS 'The advisory lock that a session of the worker holds while the process lives. Null where it has none, behind a pooler for instance: then only time tells of its death.';

COMMENT ON COLUMN outbox.worker.present_at IS 'When that session took the lock.';

CREATE VIEW outbox.message_life AS
 SELECT m.message_id,
        CASE
            WHEN (m.leased_until > now()) THEN 'processing'::text
            WHEN (m.due_at = 'infinity'::timestamp with time zone) THEN 'waiting'::text
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
            WHEN ((m.leased_until IS NULL) AND (m.due_at > now()) AND (m.due_at < 'infinity'::timestamp with time zone)) THEN m.due_at
            ELSE NULL::timestamp with time zone
        END AS next_try_at,
    m.deliveries,
    m.attempts,
    NULL::text AS outcome,
    ((m.errors -> '-1'::integer) ->> 'detail'::text) AS last_error
   FROM (outbox.message m
     LEFT JOIN outbox.worker w ON (((w.worker_id = m.worker_id) AND (m.leased_until IS NOT NULL))))
UNION ALL
 SELECT h.message_id,
        CASE
            WHEN (h.outcome = ANY (ARRAY['cancelled'::text, 'discarded'::text])) THEN h.outcome
            ELSE 'completed'::text
        END AS status,
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

COMMENT ON VIEW outbox.message_life IS 'Each message with its status (pending, scheduled, waiting, processing, completed, failed, cancelled, discarded), its worker, its workflow and run, and the time of each step.';

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

CREATE SEQUENCE outbox.rule_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE outbox.pause (
    rule_id bigint DEFAULT nextval('outbox.rule_id'::regclass) NOT NULL,
    topic text,
    key text,
    paused_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_by text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT pause_check CHECK ((num_nonnulls(topic, key) <= 1))
);

COMMENT ON TABLE outbox.pause IS 'What is not delivered now: a topic (exact, or prefix.*), a key, or with neither everything.';

CREATE TABLE outbox.topic_limit (
    topic text NOT NULL,
    rule_id bigint DEFAULT nextval('outbox.rule_id'::regclass) NOT NULL,
    rate double precision NOT NULL,
    burst integer NOT NULL,
    used_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    given_until timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    CONSTRAINT topic_limit_burst_check CHECK ((burst >= 1)),
    CONSTRAINT topic_limit_rate_check CHECK ((rate > (0)::double precision))
)
WITH (fillfactor='50');

COMMENT ON TABLE outbox.topic_limit IS 'Topics (exact, or prefix.*) of which at most `rate` messages a second are claimed, and `burst` at once.';

COMMENT ON COLUMN outbox.topic_limit.rule_id IS 'New whenever the limit changes, so that what was parked under the old one gets new times.';

COMMENT ON COLUMN outbox.topic_limit.used_until IS 'When the rate will have caught up with the claims so far: the theoretical arrival time of the generic cell rate algorithm.';

COMMENT ON COLUMN outbox.topic_limit.given_until IS 'The last time that was given to a message which has to wait.';

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

ALTER TABLE ONLY outbox.delivered_key
    ADD CONSTRAINT delivered_key_pkey PRIMARY KEY (dedup_key);

ALTER TABLE ONLY outbox.ended_rule
    ADD CONSTRAINT ended_rule_pkey PRIMARY KEY (rule_id);

ALTER TABLE ONLY outbox.import
    ADD CONSTRAINT import_name_key UNIQUE (name);

ALTER TABLE ONLY outbox.import
    ADD CONSTRAINT import_pkey PRIMARY KEY (import_id);

ALTER TABLE ONLY outbox.imported
    ADD CONSTRAINT imported_pkey PRIMARY KEY (import_id, identity);

ALTER TABLE ONLY outbox.message
    ADD CONSTRAINT message_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY outbox.pause
    ADD CONSTRAINT pause_key_key UNIQUE (key);

ALTER TABLE ONLY outbox.pause
    ADD CONSTRAINT pause_pkey PRIMARY KEY (rule_id);

ALTER TABLE ONLY outbox.pause
    ADD CONSTRAINT pause_topic_key UNIQUE (topic);

ALTER TABLE ONLY outbox.topic_limit
    ADD CONSTRAINT topic_limit_pkey PRIMARY KEY (topic);

ALTER TABLE ONLY outbox.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (worker_id);

CREATE INDEX dead_letter_died ON outbox.dead_letter USING btree (died_at);

CREATE INDEX delivered_key_until ON outbox.delivered_key USING btree (until);

CREATE INDEX history_message ON ONLY outbox.history USING btree (message_id);

CREATE INDEX history_default_message_id_idx ON outbox.history_default USING btree (message_id);

CREATE UNIQUE INDEX imported_workflow ON outbox.imported USING btree (workflow_id, namespace);

CREATE INDEX message_asleep ON outbox.message USING btree (key, seq) WHERE ((due_at = 'infinity'::timestamp with time zone) AND (parked IS NULL));

CREATE UNIQUE INDEX message_dedup ON outbox.message USING btree (dedup_key) WHERE (dedup_key IS NOT NULL);

CREATE INDEX message_due ON outbox.message USING btree (due_at, seq) WHERE (NOT gated);

CREATE UNIQUE INDEX message_in_flight ON outbox.message USING btree (key) WHERE in_flight;

CREATE INDEX message_key ON outbox.message USING btree (key, seq) WHERE (key IS NOT NULL);

CREATE INDEX message_lane ON outbox.message USING btree (outbox.lane(tenant, key), due_at, seq) WHERE (gated AND ready);

CREATE INDEX message_parked ON outbox.message USING btree (parked) WHERE (parked IS NOT NULL);

CREATE INDEX message_waiting ON outbox.message USING btree (due_at) WHERE (gated AND (NOT ready) AND (due_at < 'infinity'::timestamp with time zone));

CREATE UNIQUE INDEX pause_everything ON outbox.pause USING btree ((true)) WHERE ((topic IS NULL) AND (key IS NULL));

CREATE INDEX worker_presence ON outbox.worker USING btree (worker_id) WHERE (presence IS NOT NULL);

ALTER INDEX outbox.history_message ATTACH PARTITION outbox.history_default_message_id_idx;

CREATE TRIGGER call_next AFTER DELETE ON outbox.message FOR EACH ROW WHEN (((old.key IS NOT NULL) AND (old.in_flight OR (old.worker_id IS NULL)))) EXECUTE FUNCTION outbox.call_next();

CREATE TRIGGER switch AFTER INSERT OR DELETE OR UPDATE ON outbox.control FOR EACH STATEMENT EXECUTE FUNCTION outbox.tell_switch();

CREATE TRIGGER switch AFTER INSERT OR DELETE ON outbox.pause FOR EACH STATEMENT EXECUTE FUNCTION outbox.tell_switch();

CREATE TRIGGER wakeup AFTER INSERT ON outbox.message FOR EACH STATEMENT EXECUTE FUNCTION outbox.ring();

ALTER TABLE ONLY outbox.imported
    ADD CONSTRAINT imported_import_id_fkey FOREIGN KEY (import_id) REFERENCES outbox.import(import_id) ON DELETE CASCADE;

CREATE POLICY producer ON outbox.migration FOR SELECT TO outbox_producer USING (true);

CREATE POLICY reader ON outbox.control FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.dead_letter FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.delivered_key FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.ended_rule FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.history FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.history_default FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.import FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.imported FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.message FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.migration FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.pause FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.topic_limit FOR SELECT TO outbox_reader USING (true);

CREATE POLICY reader ON outbox.worker FOR SELECT TO outbox_reader USING (true);

CREATE POLICY worker ON outbox.control TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.dead_letter TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.delivered_key TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.ended_rule TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.history TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.history_default FOR SELECT TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.import TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.imported TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.message TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.migration FOR SELECT TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.pause TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.topic_limit TO outbox_worker USING (true);

CREATE POLICY worker ON outbox.worker TO outbox_worker USING (true);
