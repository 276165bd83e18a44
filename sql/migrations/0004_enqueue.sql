-- enqueue and enqueue_many, through which each message comes. They run in the caller's transaction.
--
-- They run with the rights of the schema's owner: producers need no rights on its tables. Their search_path holds no schema in which a
-- producer could create a name.

create function outbox.new_message_id() returns uuid
language sql volatile parallel safe
begin atomic
    -- UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. It sorts by time, so the primary key grows at its end.
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid;
end;
comment on function outbox.new_message_id() is 'A new message id: a time-ordered UUID (version 7).';

create function outbox.due_at(available_at timestamptz, priority integer, now timestamptz) returns timestamptz
language sql immutable parallel safe
begin atomic
    -- Priority is a head start: a message of priority p that is available at once overtakes those that came up to p minutes before
    -- it. None waits for ever, because none that is enqueued later than that can overtake.
    select case when available_at > now then available_at else now - make_interval(secs => 60 * priority) end;
end;

-- The scope of keys and dedup keys: one for all logins, or with scope_keys() one for each login.
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
            -- No login's prefix begins with another's, with any names.
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
    'From now on give each login keys and dedup keys of its own, by writing its name before them; or end that. For the owner of the schema.';

-- Any login may take an advisory lock, also one of ours. So each wait for one ends.
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
comment on function outbox.lock_name is 'Take this lock until the end of the transaction. Waits for at most 30 seconds.';

create function outbox.lock_key(key text) returns void
language sql
begin atomic
    select outbox.lock_name('outbox.key ' || key);
end;
comment on function outbox.lock_key is 'Other transactions that enqueue for this key with commit_order wait, so that the order of numbers is the order of commits.';

create function outbox.delivered_lately(dedup_key text) returns uuid
language sql stable
begin atomic
    select d.message_id from outbox.delivered_key d where d.dedup_key = delivered_lately.dedup_key and d.until > clock_timestamp();
end;
comment on function outbox.delivered_lately is 'The message that was delivered under this dedup_key less than its window ago.';

-- One id is one message. A second message of an id is ignored, so it must be the same message: otherwise one would be lost silently.
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

-- Adds a message, unless an unsettled message has its id or dedup_key, or one was delivered under its dedup_key within the window.
-- given_id is the producer's id for it, if any.
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
                -- After the insert, not before: the message that had the key gave it up in the commit that delivered it, and this statement
                -- sees that commit.
                earlier := case when dedup_key is not null then outbox.delivered_lately(dedup_key) end;
                if earlier is null then
                    return taken;
                end if;
                raise exception using errcode = 'OBDUP';  -- undoes the insert
            end if;
        exception when sqlstate 'OBDUP' then
            return earlier;
        end;
        -- The row in conflict may be settled before it can be read: then the insert is tried again.
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
            e.message -> 'payload' as payload,  -- as written; a record would change it
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
            -- If one message may be a repeat, or waits for a key's lock, all take the careful way.
            bool_and(r.message_id is null and r.dedup_key is null and coalesce(not r.commit_order, true)) over () as all_new
        from json_array_elements(messages) with ordinality as e (message, place),
             outbox.check_names(format('messages[%s]: ', e.place - 1), e.message),
             json_to_record(e.message) as r (
                 message_id uuid, topic text, key text, headers json, target json, dedup_key text, available_at timestamptz,
                 priority integer, tenant text, commit_order boolean, dedup_window interval, expires_at timestamptz, on_expiry text)
    ),
    checked as materialized (
        select g.*,
               outbox.check_message(format('messages[%s]: ', g.place - 1), g.topic, g.payload, g.key, g.headers, g.target, g.dedup_key,
                                    g.priority, g.tenant, g.dedup_window, g.on_expiry, g.available_at, g.expires_at) as bytes
        from given g
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
    -- The careful way: all locks are taken in one order, not the array's, so that two transactions with the same keys do not deadlock.
    -- First the locks of keys, then the numbers in the array's order, then the rows by their dedup keys.
    select m.id
    from (
        select c.place, c.new_id as id from checked c where c.all_new
        union all
        select *
        from (
        select n.place,
               outbox.add_once(n.message_id, n.seq, coalesce(n.message_id, n.new_id),
                               outbox.due_at(coalesce(n.available_at, n.now), n.priority, n.now), coalesce(n.available_at, n.now),
                               n.now, n.bytes, n.priority, n.topic, n.tenant, n.key, n.dedup_key, n.dedup_window, n.expires_at,
                               n.on_expiry, n.target, n.headers, n.payload) as id
        from (
            select l.*, nextval('outbox.message_seq_seq') as seq
            from (
                select c.*, case when c.commit_order and c.key is not null then outbox.lock_key(c.key)::text end as locked
                from checked c
                where not c.all_new
                order by c.key
            ) l
            order by l.place
        ) n
        order by n.dedup_key, n.message_id, n.place
        ) careful
    ) m
    order by m.place;
exception when data_exception then
    if sqlstate <> '22023' then  -- a value that its type does not take: find its message
        perform outbox.check_values(format('messages[%s]: ', e.place - 1), e.message)
        from json_array_elements(messages) with ordinality as e (message, place);
    end if;
    raise;
end
$$;
comment on function outbox.enqueue_many is
    'Enqueue a JSON array of messages in one statement and return their ids in its order. The names in each object are those of enqueue''s parameters.';
