-- What producers call. Every function runs in the caller's transaction, and refuses bad arguments there and then with SQLSTATE 22023
-- (invalid_parameter_value), so that a mistake is the producer's error and never a dead letter.
--
-- enqueue and enqueue_many, through which all the others go, run with the rights of the schema's owner: producers need none on its
-- tables. Their search_path holds nothing that a producer could put a name into.

create function outbox.new_message_id() returns uuid
language sql volatile parallel safe
begin atomic
    -- UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. Sorts by time, so the primary key grows at its end.
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid;
end;
comment on function outbox.new_message_id() is 'A new message id: a time-ordered UUID (version 7).';

create function outbox.refuse(fault text, cure text default null) returns void
language plpgsql
as $$
begin
    if cure is null then
        raise exception using errcode = 'invalid_parameter_value', message = 'outbox: ' || fault;
    end if;
    raise exception using errcode = 'invalid_parameter_value', message = 'outbox: ' || fault, hint = cure;
end
$$;

create function outbox.due_at(available_at timestamptz, priority integer, now timestamptz) returns timestamptz
language sql immutable parallel safe
begin atomic
    -- Priority is a head start: a message of priority p that is available at once takes its place among those that came up to
    -- p minutes before it. Nothing starves, because nothing enqueued later than that can overtake.
    select case when available_at > now then available_at else now - make_interval(secs => 60 * priority) end;
end;

create function outbox.check_message(
    place text, topic text, payload json, key text, headers json, target json, dedup_key text, priority integer, tenant text,
    dedup_window interval, on_expiry text, available_at timestamptz, expires_at timestamptz
) returns integer
language plpgsql
as $$
declare
    written constant text    := concat(payload, headers, target);
    bytes   constant integer := octet_length(written);
begin
    if bytes > 1000 or strpos(written, E'\\') > 0 then
        perform outbox.check_json(place, written, payload, headers, target);
    end if;
    if target is not null then
        perform outbox.check_target(place, target);
    end if;
    if key = '' or dedup_key = '' or tenant = '' or octet_length(concat(key, dedup_key, tenant)) > 1000 then
        perform outbox.check_name(place, 'key', key), outbox.check_name(place, 'dedup_key', dedup_key), outbox.check_name(place, 'tenant', tenant);
    end if;
    -- Most messages are this ordinary. One condition costs less than the many that follow.
    if topic <> '' and octet_length(topic) <= 255 and priority between 0 and 9 and headers::text = '{}' and available_at is null
       and expires_at is null and on_expiry = 'bury' and dedup_window between interval '0' and interval '36000 days' then
        return bytes;
    end if;
    if topic is null or topic = '' then
        perform outbox.refuse(place || 'topic must not be empty');
    elsif octet_length(topic) > 255 then
        perform outbox.refuse(format('%stopic is %s bytes long, the limit is 255', place, octet_length(topic)));
    elsif priority is null or priority not between 0 and 9 then
        perform outbox.refuse(format('%spriority is %s, it must lie between 0 and 9', place, coalesce(priority::text, 'null')),
                              '0 is ordinary; each step lets a message overtake those that came up to a minute earlier');
    elsif headers is null or json_typeof(headers) <> 'object' then
        perform outbox.refuse(place || 'headers must be a JSON object', 'pass {} or leave them out for none');
    elsif on_expiry is null or on_expiry not in ('bury', 'discard') then
        perform outbox.refuse(format('%son_expiry is %s', place, coalesce(quote_literal(on_expiry), 'null')), 'use bury or discard');
    elsif dedup_window is null then
        perform outbox.refuse(place || 'dedup_window is null', 'pass 0 for none');
    elsif dedup_window not between interval '0' and interval '36000 days' then
        perform outbox.check_interval(place, 'dedup_window', dedup_window);
    end if;
    if headers::text <> '{}' and (
        json_typeof(headers -> 'traceparent') <> 'string' or json_typeof(headers -> 'tracestate') <> 'string'
        or json_typeof(headers -> 'baggage') <> 'string' or headers -> '_tracer-data' is not null) then
        perform outbox.check_headers(place, headers);
    end if;
    if available_at is not null or expires_at is not null then
        perform outbox.check_time(place, 'available_at', available_at), outbox.check_time(place, 'expires_at', expires_at);
    end if;
    return bytes;
end
$$;
comment on function outbox.check_message is 'Refuses what may not be enqueued. Returns the bytes of its JSON as text, for outbox.message.bytes.';

create function outbox.check_json(place text, written text, payload json, headers json, target json) returns void
language plpgsql
as $$
declare
    bytes constant integer := octet_length(written);
begin
    if bytes > 65536 or bytes > 1000 and bytes - octet_length(replace(replace(written, '[', ''), '{', '')) > 500 then
        perform outbox.check_size(place, payload, headers, target);
    end if;
    if strpos(written, E'\\') > 0 and strpos(written, E'\\u') > 0 then  -- one character is found much faster than two
        perform outbox.check_escapes(place, payload, headers, target);
    end if;
end
$$;
comment on function outbox.check_json is 'Refuses JSON that is too long, too deep or no Unicode. Called for what is long or has escapes.';

create function outbox.check_name(place text, name text, value text) returns void
language plpgsql
as $$
begin
    if value = '' then
        perform outbox.refuse(format('%s%s must not be empty', place, name), 'pass null for none');
    elsif octet_length(value) > 1000 then  -- an index entry has room for no more than 2700 bytes
        perform outbox.refuse(format('%s%s is %s bytes long, the limit is 1000', place, name, octet_length(value)));
    end if;
end
$$;

create function outbox.check_target(place text, given json) returns void
language plpgsql
as $$
declare
    target      constant jsonb := given;  -- read once; this also refuses characters that PostgreSQL cannot hold, such as \u0000
    operation   constant text := target ->> 'operation';
    workflow_id constant text := target ->> 'workflow_id';
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
    -- Each call costs more than these conditions.
    if octet_length(given::text) > 1000 then
        perform outbox.check_names_of_target(place || operation, target);
    end if;
    if target @? 'strict $.* ? (@.type() != "string")' then
        perform outbox.check_types(place || operation, target);
    end if;
    if target ->> 'arguments' not in ('none', 'one', 'many')
       or target ?| '{id_reuse_policy,id_conflict_policy,on_duplicate,signal_arguments}' then
        perform outbox.check_policies(place || operation, operation, target);
    end if;
    if target ?| '{retry_policy,memo,search_attributes}' then
        perform outbox.check_objects(place || operation, target);
    end if;
    -- Plain numbers of seconds, up to 31 years, are fine.
    if target ?| '{execution_timeout_s,run_timeout_s,task_timeout_s,start_delay_s,retry_policy}' and (
        target ? 'retry_policy'
        or concat_ws(' ', target -> 'execution_timeout_s', target -> 'run_timeout_s', target -> 'task_timeout_s', target -> 'start_delay_s')
           !~ '^([0-9]{1,9}([.][0-9]{1,6})?( |$))*$') then
        perform outbox.check_durations(place || operation, given),
                outbox.check_durations(place || operation || ': retry_policy', (target -> 'retry_policy')::json);
    end if;
end
$$;

create function outbox.check_names_of_target(place text, target jsonb) returns void
language plpgsql
as $$
declare
    name text;
begin
    foreach name in array '{workflow,signal,task_queue,namespace,run_id,reason}'::text[] loop
        if octet_length(target ->> name) > 1000 then
            perform outbox.refuse(format('%s: %s is %s bytes long, the limit is 1000', place, name, octet_length(target ->> name)));
        end if;
    end loop;
end
$$;

create function outbox.check_types(place text, target jsonb) returns void
language plpgsql
as $$
declare
    name text;
begin
    foreach name in array '{workflow_id,workflow,signal,arguments,signal_arguments,task_queue,namespace,run_id,reason,summary,details}'::text[] loop
        if jsonb_typeof(target -> name) not in ('string', 'null') then
            perform outbox.refuse(format('%s: %s must be a string', place, name));
        end if;
    end loop;
end
$$;

create function outbox.check_policies(place text, operation text, target jsonb) returns void
language plpgsql
as $$
begin
    perform outbox.check_word(place, 'id_reuse_policy', target ->> 'id_reuse_policy',
                              '{reject_duplicate,allow_duplicate,allow_duplicate_failed_only}');
    perform outbox.check_word(place, 'id_conflict_policy', target ->> 'id_conflict_policy',
                              case operation when 'signal_with_start_workflow' then '{use_existing,terminate_existing}'
                                             else '{fail,use_existing,terminate_existing}' end::text[]);
    if target ->> 'id_conflict_policy' = 'terminate_existing' and coalesce(target ->> 'id_reuse_policy', 'reject_duplicate') = 'reject_duplicate' then
        perform outbox.refuse(format('%s: id_conflict_policy terminate_existing contradicts id_reuse_policy reject_duplicate', place),
                              'choose another id_reuse_policy');
    end if;
    perform outbox.check_word(place, 'on_duplicate', target ->> 'on_duplicate', '{accept,reject}'),
            outbox.check_word(place, 'arguments', target ->> 'arguments', '{none,one,many}'),
            outbox.check_word(place, 'signal_arguments', target ->> 'signal_arguments', '{none,one,many}');
end
$$;

create function outbox.check_objects(place text, target jsonb) returns void
language plpgsql
as $$
declare
    name text;
begin
    foreach name in array '{retry_policy,memo,search_attributes}'::text[] loop
        if jsonb_typeof(target -> name) <> 'object' then
            perform outbox.refuse(format('%s: %s must be a JSON object', place, name));
        end if;
    end loop;
    if target -> 'memo' ? 'outbox_message_id' then
        perform outbox.refuse(place || ': memo.outbox_message_id is the outbox''s own', 'choose another name');
    end if;
    if target ? 'search_attributes' then
        perform outbox.check_search_attributes(place, target -> 'search_attributes');
    end if;
end
$$;

create function outbox.check_word(place text, name text, value text, words text[]) returns void
language plpgsql
as $$
begin
    if value <> all (words) then
        perform outbox.refuse(format('%s: %s is %L', place, name, value), 'use ' || array_to_string(words, ', '));
    end if;
end
$$;

-- Whose keys and dedup keys are meant: everyone's, or with scope_keys() the calling login's own.
create function outbox.scoped(name text) returns text
language sql stable parallel safe
begin atomic
    select name;
end;

create function outbox.scope_keys(enabled boolean default true) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if enabled then
        create or replace function outbox.scoped(name text) returns text
        language sql stable parallel safe
        begin atomic
            -- No login's prefix begins with another's, whatever the names hold.
            select replace(replace(session_user, '%', '%25'), ':', '%3A') || ':' || name;
        end;
    else
        create or replace function outbox.scoped(name text) returns text
        language sql stable parallel safe
        begin atomic
            select name;
        end;
    end if;
end
$$;
comment on function outbox.scope_keys(enabled boolean) is
    'Give each login keys and dedup keys of its own from now on, by writing its name before them, or end that. For the owner of the schema.';

-- Any login may take an advisory lock, also one of ours: so no wait for one goes on for ever.
create function outbox.lock_name(name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(name, 0));
exception when lock_not_available then
    raise exception using errcode = 'lock_not_available', message = format('outbox: another transaction has kept the lock of %L for 30 s', name),
        hint = 'end it: pg_blocking_pids() of a session that waits names it';
end
$$;
comment on function outbox.lock_name is 'Be the only transaction with this lock until its end. Waits for at most 30 seconds.';

create function outbox.lock_key(key text) returns void
language sql
begin atomic
    select outbox.lock_name('outbox.key ' || key);
end;
comment on function outbox.lock_key is 'Holds other transactions that enqueue for this key in commit_order, so that the order of numbers is the order of commits.';

create function outbox.delivered_lately(dedup_key text) returns uuid
language sql stable
begin atomic
    select d.message_id from outbox.delivered_key d where d.dedup_key = delivered_lately.dedup_key and d.until > clock_timestamp();
end;
comment on function outbox.delivered_lately is 'The message that was delivered under this dedup_key less than its window ago.';

-- One id is one message. A repeat of it is ignored, so it must be a repeat: else a message would be lost without an error.
create function outbox.check_same(place text, message_id uuid, topic text, target json, payload json) returns void
language plpgsql
as $$
begin
    if exists (
        select from outbox.message m
        where m.message_id = check_same.message_id
          and (m.topic <> check_same.topic
               or m.payload::text is distinct from check_same.payload::text
               or (m.target ->> 'operation', m.target ->> 'workflow_id', m.target ->> 'signal')
                  is distinct from (check_same.target ->> 'operation', check_same.target ->> 'workflow_id', check_same.target ->> 'signal'))) then
        perform outbox.refuse(format('%smessage_id %s belongs to another message, with another topic, target or payload', place, message_id),
                              'give each message an id of its own; leave it out for a new one');
    end if;
end
$$;

-- Adds a message unless another one stands for it: one that waits with its id or dedup_key, or one delivered under its dedup_key lately.
-- given_id is the id that the producer gave, if it gave one.
create function outbox.add_once(
    given_id uuid, seq bigint, id uuid, due timestamptz, start timestamptz, now timestamptz, bytes integer, priority integer, topic text,
    tenant text, key text, dedup_key text, dedup_window interval, expires_at timestamptz, on_expiry text, target json, headers json,
    payload json
) returns uuid
language plpgsql
as $$
#variable_conflict use_variable
declare
    restricted boolean := tenant is not null or key is not null;
    taken uuid;
    earlier uuid;
begin
    loop
        begin
            insert into outbox.message as m
                (message_id, seq, due_at, available_at, created_at, bytes, priority, topic, tenant, key, restricted, ready, dedup_key, dedup_window,
                 expires_at, on_expiry, target, headers, payload)
            overriding system value
            values (id, seq, due, start, now, bytes, priority, topic, tenant, key, restricted, not restricted or start <= now,
                    dedup_key, case when dedup_key is not null then dedup_window end,
                    expires_at, case when expires_at is not null then on_expiry end, target, headers, payload)
            on conflict do nothing
            returning m.message_id into taken;
            if found then
                -- After the insert, not before: the message that had the key until then left it with the commit that delivered it, and
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
            if taken = given_id then
                perform outbox.check_same('', taken, topic, target, payload);
            end if;
            return taken;
        end if;
    end loop;
end
$$;

create function outbox.enqueue(
    topic        text,
    payload      json        default null,
    key          text        default null,
    headers      json        default '{}',
    target       json        default null,
    message_id   uuid        default null,
    dedup_key    text        default null,
    available_at timestamptz default null,
    priority     integer     default 0,
    tenant       text        default null,
    commit_order boolean     default false,
    dedup_window interval    default '1 hour',
    expires_at   timestamptz default null,
    on_expiry    text        default 'bury'
) returns uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    now   timestamptz := clock_timestamp();
    start timestamptz := coalesce(available_at, now);
    due   timestamptz;
    restricted boolean := tenant is not null or key is not null;
    ready boolean;
    id    uuid := coalesce(message_id, outbox.new_message_id());
    bytes integer;
begin
    if key is not null or dedup_key is not null then
        key := outbox.scoped(key);
        dedup_key := outbox.scoped(dedup_key);
    end if;
    bytes := outbox.check_message('', topic, payload, key, headers, target, dedup_key, priority, tenant, dedup_window, on_expiry,
                                  available_at, expires_at);
    due := outbox.due_at(start, priority, now);
    ready := not restricted or start <= now;
    if commit_order and key is not null then
        perform outbox.lock_key(key);
    end if;
    if message_id is null and dedup_key is null then
        insert into outbox.message as m
            (message_id, due_at, available_at, created_at, bytes, priority, topic, tenant, key, restricted, ready, expires_at, on_expiry, target,
             headers, payload)
        values (id, due, start, now, bytes, priority, topic, tenant, key, restricted, ready, expires_at,
                case when expires_at is not null then on_expiry end, target, headers, payload);
        return id;
    end if;
    return outbox.add_once(message_id, nextval('outbox.message_seq_seq'), id, due, start, now, bytes, priority, topic, tenant, key, dedup_key,
                           dedup_window, expires_at, on_expiry, target, headers, payload);
end
$$;
comment on function outbox.enqueue is
    'Enqueue one message in this transaction and return its id. An id or dedup_key that an unsettled message has, or a dedup_key delivered less than its window ago, returns that message''s id and adds nothing.';

create function outbox.check_names(place text, message json) returns void
language plpgsql
as $$
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

create function outbox.check_values(place text, message json) returns void
language plpgsql
as $$
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

create function outbox.enqueue_many(messages json) returns setof uuid
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
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
            outbox.scoped(r.key) as key,
            coalesce(r.headers, '{}') as headers,
            r.target,
            outbox.scoped(r.dedup_key) as dedup_key,
            r.available_at,
            coalesce(r.priority, 0) as priority,
            r.tenant,
            coalesce(r.commit_order, false) as commit_order,
            coalesce(r.dedup_window, '1 hour') as dedup_window,
            r.expires_at,
            coalesce(r.on_expiry, 'bury') as on_expiry,
            clock_timestamp() as now,
            -- A message that may meet its like, or waits for a key's lock, takes the careful way, and then all do.
            bool_and(r.message_id is null and r.dedup_key is null and coalesce(not r.commit_order, true)) over () as all_new
        from json_array_elements(messages) with ordinality as e (message, place),
             outbox.check_names(format('messages[%s]: ', e.place - 1), e.message),
             json_to_record(e.message) as r (
                 message_id uuid, topic text, key text, headers json, target json, dedup_key text, available_at timestamptz,
                 priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamptz, on_expiry text)
    ),
    checked as materialized (
        select g.*, bytes
        from given g,
             outbox.check_message(format('messages[%s]: ', g.place - 1), g.topic, g.payload, g.key, g.headers, g.target, g.dedup_key,
                                  g.priority, g.tenant, g.dedup_window, g.on_expiry, g.available_at, g.expires_at) as bytes
    ),
    added as (
        insert into outbox.message
            (message_id, due_at, available_at, created_at, bytes, priority, topic, tenant, key, restricted, ready, expires_at, on_expiry, target,
             headers, payload)
        select c.new_id, outbox.due_at(coalesce(c.available_at, c.now), c.priority, c.now), coalesce(c.available_at, c.now), c.now,
               c.bytes, c.priority, c.topic, c.tenant, c.key,
               c.tenant is not null or c.key is not null, c.tenant is null and c.key is null or coalesce(c.available_at <= c.now, true), c.expires_at,
               case when c.expires_at is not null then c.on_expiry end, c.target, c.headers, c.payload
        from checked c
        where c.all_new
        order by c.place
    )
    -- The careful way: each lock is taken in one order, whatever the array's is, so that two transactions with the same keys wait for one
    -- another and do not deadlock. First the locks of keys, then the numbers in the array's order, then the rows by their dedup keys.
    select m.id
    from (
        select n.place,
               case when n.all_new then n.new_id
                    else outbox.add_once(n.message_id, n.seq, coalesce(n.message_id, n.new_id),
                                         outbox.due_at(coalesce(n.available_at, n.now), n.priority, n.now), coalesce(n.available_at, n.now),
                                         n.now, n.bytes, n.priority, n.topic, n.tenant, n.key, n.dedup_key, n.dedup_window, n.expires_at,
                                         n.on_expiry, n.target, n.headers, n.payload)
               end as id
        from (
            select l.*, case when not l.all_new then nextval('outbox.message_seq_seq') end as seq
            from (
                select c.*, case when c.commit_order and c.key is not null then outbox.lock_key(c.key)::text end as locked
                from checked c
                order by c.key
            ) l
            order by l.place
        ) n
        order by n.dedup_key, n.message_id, n.place
    ) m
    order by m.place;
exception when data_exception then
    if sqlstate <> '22023' then  -- a value that its type does not take: find out whose
        perform outbox.check_values(format('messages[%s]: ', e.place - 1), e.message)
        from json_array_elements(messages) with ordinality as e (message, place);
    end if;
    raise;
end
$$;
comment on function outbox.enqueue_many is
    'Enqueue a JSON array of messages in one statement and return their ids in its order. Each object takes the names of enqueue''s parameters.';

create function outbox.arguments(input json, args json) returns text
language plpgsql
as $$
begin
    if input is not null and args is not null then
        perform outbox.refuse('give either input (one argument) or args (a JSON array of several), not both');
    elsif args is not null and json_typeof(args) <> 'array' then
        perform outbox.refuse('args must be a JSON array', 'use input for a single argument');
    end if;
    return case when args is not null then 'many' when input is not null then 'one' else 'none' end;
end
$$;

create function outbox.seconds(name text, duration interval) returns numeric
language plpgsql immutable strict  -- most calls have no duration, and cost nothing then
as $$
begin
    perform outbox.check_interval('', name, duration);
    return round(extract(epoch from duration), 6);
end
$$;

create function outbox.start_workflow(
    workflow           text,
    workflow_id        text,
    input              json        default null,
    args               json        default null,
    task_queue         text        default null,
    namespace          text        default null,
    id_reuse_policy    text        default null,
    id_conflict_policy text        default null,
    on_duplicate       text        default null,
    execution_timeout  interval    default null,
    run_timeout        interval    default null,
    task_timeout       interval    default null,
    start_delay        interval    default null,
    retry_policy       json        default null,
    memo               json        default null,
    search_attributes  json        default null,
    topic              text        default null,
    key                text        default null,
    headers            json        default '{}',
    message_id         uuid        default null,
    dedup_key          text        default null,
    available_at       timestamptz default null,
    priority           integer     default 0,
    tenant             text        default null,
    commit_order       boolean     default false,
    dedup_window       interval    default '1 hour',
    expires_at         timestamptz default null,
    on_expiry          text        default 'bury'
) returns uuid
language sql
begin atomic
    select outbox.enqueue(
        topic => coalesce(topic, workflow), payload => coalesce(input, args), key => key, headers => headers,
        target => ('{' || concat_ws(', ',
            '"operation": "start_workflow"', '"workflow": ' || to_json(workflow), '"workflow_id": ' || to_json(workflow_id),
            '"arguments": ' || to_json(outbox.arguments(input, args)), '"task_queue": ' || to_json(task_queue),
            '"namespace": ' || to_json(namespace), '"id_reuse_policy": ' || to_json(id_reuse_policy),
            '"id_conflict_policy": ' || to_json(id_conflict_policy), '"on_duplicate": ' || to_json(on_duplicate),
            '"execution_timeout_s": ' || outbox.seconds('execution_timeout', execution_timeout),
            '"run_timeout_s": ' || outbox.seconds('run_timeout', run_timeout), '"task_timeout_s": ' || outbox.seconds('task_timeout', task_timeout),
            '"start_delay_s": ' || outbox.seconds('start_delay', start_delay), '"retry_policy": ' || retry_policy, '"memo": ' || memo,
            '"search_attributes": ' || search_attributes) || '}')::json,
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry);
end;
comment on function outbox.start_workflow is
    'Start a workflow once this transaction has committed. input is its one argument, args a JSON array of several. topic defaults to the workflow type.';

create function outbox.signal_workflow(
    workflow_id        text,
    signal             text,
    input              json        default null,
    args               json        default null,
    run_id             text        default null,
    namespace          text        default null,
    topic              text        default null,
    key                text        default null,
    headers            json        default '{}',
    message_id         uuid        default null,
    dedup_key          text        default null,
    available_at       timestamptz default null,
    priority           integer     default 0,
    tenant             text        default null,
    commit_order       boolean     default false,
    dedup_window       interval    default '1 hour',
    expires_at         timestamptz default null,
    on_expiry          text        default 'bury'
) returns uuid
language sql
begin atomic
    select outbox.enqueue(
        topic => coalesce(topic, signal), payload => coalesce(input, args), key => key, headers => headers,
        target => ('{' || concat_ws(', ',
            '"operation": "signal_workflow"', '"workflow_id": ' || to_json(workflow_id), '"signal": ' || to_json(signal),
            '"run_id": ' || to_json(run_id), '"arguments": ' || to_json(outbox.arguments(input, args)), '"namespace": ' || to_json(namespace)) || '}')::json,
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry);
end;
comment on function outbox.signal_workflow is
    'Signal a workflow once this transaction has committed. topic defaults to the signal name.';

create function outbox.signal_with_start_workflow(
    workflow           text,
    workflow_id        text,
    signal             text,
    input              json        default null,
    args               json        default null,
    signal_input       json        default null,
    signal_args        json        default null,
    task_queue         text        default null,
    namespace          text        default null,
    id_reuse_policy    text        default null,
    id_conflict_policy text        default null,
    execution_timeout  interval    default null,
    run_timeout        interval    default null,
    task_timeout       interval    default null,
    start_delay        interval    default null,
    retry_policy       json        default null,
    memo               json        default null,
    search_attributes  json        default null,
    topic              text        default null,
    key                text        default null,
    headers            json        default '{}',
    message_id         uuid        default null,
    dedup_key          text        default null,
    available_at       timestamptz default null,
    priority           integer     default 0,
    tenant             text        default null,
    commit_order       boolean     default false,
    dedup_window       interval    default '1 hour',
    expires_at         timestamptz default null,
    on_expiry          text        default 'bury'
) returns uuid
language sql
begin atomic
    select outbox.enqueue(
        topic => coalesce(topic, workflow), key => key, headers => headers,
        payload => json_build_object(
            'args', case outbox.arguments(input, args) when 'one' then json_build_array(input) else coalesce(args, '[]') end,
            'signal_args', case outbox.arguments(signal_input, signal_args)
                           when 'one' then json_build_array(signal_input) else coalesce(signal_args, '[]') end),
        target => ('{' || concat_ws(', ',
            '"operation": "signal_with_start_workflow"', '"workflow": ' || to_json(workflow), '"workflow_id": ' || to_json(workflow_id),
            '"signal": ' || to_json(signal), '"task_queue": ' || to_json(task_queue), '"namespace": ' || to_json(namespace),
            '"id_reuse_policy": ' || to_json(id_reuse_policy), '"id_conflict_policy": ' || to_json(id_conflict_policy), '"execution_timeout_s": ' || outbox.seconds('execution_timeout', execution_timeout),
            '"run_timeout_s": ' || outbox.seconds('run_timeout', run_timeout), '"task_timeout_s": ' || outbox.seconds('task_timeout', task_timeout),
            '"start_delay_s": ' || outbox.seconds('start_delay', start_delay), '"retry_policy": ' || retry_policy, '"memo": ' || memo,
            '"search_attributes": ' || search_attributes) || '}')::json,
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry);
end;
comment on function outbox.signal_with_start_workflow is
    'Signal a workflow and start it first if it does not run, once this transaction has committed. topic defaults to the workflow type.';

create function outbox.cancel_workflow(
    workflow_id        text,
    reason             text        default null,
    run_id             text        default null,
    namespace          text        default null,
    topic              text        default null,
    key                text        default null,
    headers            json        default '{}',
    message_id         uuid        default null,
    dedup_key          text        default null,
    available_at       timestamptz default null,
    priority           integer     default 0,
    tenant             text        default null,
    commit_order       boolean     default false,
    dedup_window       interval    default '1 hour',
    expires_at         timestamptz default null,
    on_expiry          text        default 'bury'
) returns uuid
language sql
begin atomic
    select outbox.enqueue(
        topic => coalesce(topic, 'cancel_workflow'), key => key, headers => headers,
        target => ('{' || concat_ws(', ',
            '"operation": "cancel_workflow"', '"workflow_id": ' || to_json(workflow_id), '"reason": ' || to_json(reason),
            '"run_id": ' || to_json(run_id), '"namespace": ' || to_json(namespace)) || '}')::json,
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry);
end;
comment on function outbox.cancel_workflow is
    'Ask a workflow to cancel itself once this transaction has committed. topic defaults to cancel_workflow.';

create function outbox.terminate_workflow(
    workflow_id        text,
    reason             text        default null,
    run_id             text        default null,
    namespace          text        default null,
    topic              text        default null,
    key                text        default null,
    headers            json        default '{}',
    message_id         uuid        default null,
    dedup_key          text        default null,
    available_at       timestamptz default null,
    priority           integer     default 0,
    tenant             text        default null,
    commit_order       boolean     default false,
    dedup_window       interval    default '1 hour',
    expires_at         timestamptz default null,
    on_expiry          text        default 'bury'
) returns uuid
language sql
begin atomic
    select outbox.enqueue(
        topic => coalesce(topic, 'terminate_workflow'), key => key, headers => headers,
        target => ('{' || concat_ws(', ',
            '"operation": "terminate_workflow"', '"workflow_id": ' || to_json(workflow_id), '"reason": ' || to_json(reason),
            '"run_id": ' || to_json(run_id), '"namespace": ' || to_json(namespace)) || '}')::json,
        message_id => message_id, dedup_key => dedup_key, available_at => available_at, priority => priority,
        tenant => tenant, commit_order => commit_order, dedup_window => dedup_window, expires_at => expires_at, on_expiry => on_expiry);
end;
comment on function outbox.terminate_workflow is
    'Terminate a workflow once this transaction has committed. topic defaults to terminate_workflow.';
