-- The checks of one message, where it is enqueued. A message outside these bounds would stop its worker, or fail at its first delivery.
--
-- A bad argument is refused with SQLSTATE 22023 (invalid_parameter_value). So a mistake is the producer's error, and never a dead letter.
--
-- Times are between 1970 and 2200, intervals between 0 and 100 years. No producer can write an infinite time, so `due_at = infinity` is
-- the outbox's own mark for a message that waits for its turn.

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

create function outbox.check_message(
    place text, topic text, payload json, key text, headers json, target json, dedup_key text, priority integer, tenant text,
    dedup_window interval, on_expiry text, available_at timestamptz, expires_at timestamptz
) returns integer
language plpgsql
as $$
declare
    written constant text    := concat(payload, headers, target);
    bytes   constant integer := octet_length(written);
    opened  integer;
begin
    -- Half of a surrogate pair, or U+0000. A single character is found fastest, and more of them faster by LIKE than by strpos.
    if strpos(written, E'\\') > 0 and written like E'%\\\\u%' and (
        written like E'%\\\\ud%' or written like E'%\\\\uD%' or concat(headers, target) like E'%\\\\u0000%') then
        perform outbox.check_escapes(place, payload, headers, target);
    end if;
    -- Each call costs more than these conditions.
    if bytes > 1000 then
        opened := bytes - octet_length(replace(replace(written, '[', ''), '{', ''));
        if opened > 500 or bytes > 65536 or bytes - coalesce(octet_length(payload::text), 0) > 1000 or target ->> 'arguments' = 'many' then
            perform outbox.check_large(place, written, opened, payload, headers, target);
        end if;
    end if;
    if target is not null then
        perform outbox.check_target(place, target);
    end if;
    if key = '' or dedup_key = '' or tenant = '' or octet_length(concat(key, dedup_key, tenant)) > 1000 then
        perform outbox.check_name(place, 'key', key), outbox.check_name(place, 'dedup_key', dedup_key), outbox.check_name(place, 'tenant', tenant);
    end if;
    -- Most messages pass here. One condition costs less than the many that follow. In headers only the first name is common: for the
    -- others the text is searched, because that is faster than to read JSON. With an escape a name looks different.
    if topic <> '' and octet_length(topic) <= 255 and priority between 0 and 9 and on_expiry in ('bury', 'discard')
       and dedup_window between interval '0' and interval '36000 days'
       and (available_at is null or available_at between '1970-01-01 00:00+00' and '2200-01-01 00:00+00')
       and (expires_at is null or expires_at between '1970-01-01 00:00+00' and '2200-01-01 00:00+00')
       and (headers::text = '{}' or json_typeof(headers) = 'object' and coalesce(json_typeof(headers -> 'traceparent'), 'string') = 'string'
            and strpos(headers::text, 'tracestate') = 0 and strpos(headers::text, 'baggage') = 0
            and strpos(headers::text, '_tracer-data') = 0 and strpos(headers::text, E'\\') = 0) then
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
    perform outbox.check_headers(place, headers), outbox.check_time(place, 'available_at', available_at),
            outbox.check_time(place, 'expires_at', expires_at);
    return bytes;
end
$$;
comment on function outbox.check_message is 'Refuses a message that may not be enqueued. Returns the bytes of its JSON as text, for outbox.message.bytes.';

create function outbox.check_name(place text, name text, value text) returns void
language plpgsql strict  -- a value that is missing costs nothing
as $$
begin
    if value = '' then
        perform outbox.refuse(format('%s%s must not be empty', place, name), 'pass null for none');
    elsif octet_length(value) > 1000 then  -- an index entry has room for 2700 bytes
        perform outbox.refuse(format('%s%s is %s bytes long, the limit is 1000', place, name, octet_length(value)));
    end if;
end
$$;

create function outbox.check_time(place text, name text, value timestamptz) returns void
language plpgsql strict  -- a value that is missing costs nothing
as $$
begin
    if value not between '1970-01-01 00:00+00' and '2200-01-01 00:00+00' then
        perform outbox.refuse(format('%s%s is %s, it must lie between the years 1970 and 2200', place, name, value),
                              case name when 'expires_at' then 'pass null for a message that never expires' else 'pass null for now' end);
    end if;
end
$$;
comment on function outbox.check_time is 'Refuses a time that is infinite, before 1970 or after 2200.';

create function outbox.check_interval(place text, name text, value interval) returns void
language plpgsql strict  -- a value that is missing costs nothing
as $$
begin
    if extract(epoch from value) not between 0 and 3155760000 then
        perform outbox.refuse(format('%s%s is %s, it must lie between 0 and 100 years', place, name, value));
    end if;
end
$$;
comment on function outbox.check_interval is 'Refuses an interval that is negative, infinite, or longer than 100 years.';

-- Sizes are those of the JSON as text, in bytes. Temporal accepts 2 MiB for a payload and for a memo, and 4 MiB for a request.
create function outbox.check_large(place text, written text, opened integer, payload json, headers json, target json) returns void
language plpgsql
as $$
begin
    if octet_length(payload::text) > 2096128 then  -- 2 MiB, minus what the payload's encoding adds
        perform outbox.refuse(format('%spayload is %s bytes long, the limit is 2096128', place, octet_length(payload::text)),
                              'store it elsewhere and send its address');
    elsif octet_length(headers::text) > 65536 then
        perform outbox.refuse(format('%sheaders are %s bytes long, the limit is 65536', place, octet_length(headers::text)));
    elsif octet_length(target::text) > 1310720 then
        perform outbox.refuse(format('%starget is %s bytes long, the limit is 1310720', place, octet_length(target::text)),
                              'store large values elsewhere and send their address');
    end if;
    if opened > 500 then
        perform outbox.check_depth(place, 'payload', payload, opened), outbox.check_depth(place, 'headers', headers, opened),
                outbox.check_depth(place, 'target', target, opened);
    end if;
    if (octet_length(concat(headers, target)) > 1000 or target ->> 'arguments' = 'many')
       and octet_length(written) - octet_length(replace(written, ',', '')) >= 500 then
        perform outbox.check_parts(place, payload, headers, target);
    end if;
end
$$;
comment on function outbox.check_large is
    'Refuses JSON that is too long, too deep or has too many parts. written is all of it, opened the number of its brackets.';

-- Python's json reads about 990 levels minus the depth of its caller, orjson 1024, Java's Jackson 1000, PHP 512.
create function outbox.check_depth(place text, name text, value json, opened integer) returns void
language plpgsql strict
as $$
declare
    written constant text := value::text;
    gap     text;
    fault   text;
begin
    if octet_length(written) <= 1000 then
        return;
    end if;
    -- Of siblings only one can be on the way to the deepest value. In a string such a pattern removes only the bracket that it counted.
    gap := case when strpos(left(written, 2000), ', ') > 0 then ', ' else ',' end;
    opened := opened - (octet_length(written) - octet_length(replace(written, '}' || gap || '{', ''))) / (2 + length(gap));
    if opened > 500 then
        opened := opened - (octet_length(written) - octet_length(replace(written, ']' || gap || '[', ''))) / (2 + length(gap));
    end if;
    if opened > 500 and replace(written, E'\\u0000', E'\\u0001')::jsonb @? 'strict $.**{501}' then
        perform outbox.refuse(format('%s%s is nested more than 500 levels deep', place, name), 'send it as text, or flatten it');
    end if;
exception
    when invalid_parameter_value then
        raise;
    when data_exception then
        get stacked diagnostics fault = pg_exception_detail;
        perform outbox.refuse(format('%s%s: %s', place, name, coalesce(nullif(fault, ''), sqlerrm)));
end
$$;

create function outbox.check_escapes(place text, payload json, headers json, target json) returns void
language plpgsql
as $$
declare
    name  text;
    fault text;
begin
    -- With a path that leads nowhere, all of the text is read, with its escapes. A payload is passed on unchanged: it may have \u0000.
    name := 'payload'; perform case when strpos(payload::text, E'\\u0000') > 0 then replace(payload::text, E'\\u0000', E'\\u0001')::json else payload end -> 0;
    name := 'headers'; perform headers -> 0;
    name := 'target'; perform target -> 0;
exception when data_exception then
    get stacked diagnostics fault = pg_exception_detail;
    perform outbox.refuse(format('%s%s is no valid Unicode: %s', place, name, fault), 'leave the character out, or send it as base64');
end
$$;
comment on function outbox.check_escapes is 'Refuses half of a surrogate pair, which is no character, and U+0000 in headers and targets.';

-- Each part costs a kilobyte of a worker's memory on its way to Temporal, however short its text is.
create function outbox.check_parts(place text, payload json, headers json, target json) returns void
language plpgsql
as $$
declare
    retry_policy constant json := target -> 'retry_policy';
    name         text;
    parts        bigint;
begin
    for name, parts in
        select 'args', case when target ->> 'arguments' = 'many' and json_typeof(payload) = 'array' then json_array_length(payload) end
        union all
        select 'retry_policy.' || r.key, json_array_length(r.value)
        from json_each(case when json_typeof(retry_policy) = 'object' then retry_policy end) r
        where json_typeof(r.value) = 'array'
        union all
        select o.name, (select count(*) from json_object_keys(o.value))
        from (values ('headers', headers), ('memo', target -> 'memo'), ('search_attributes', target -> 'search_attributes')) o (name, value)
        where json_typeof(o.value) = 'object'
    loop
        if parts > 500 then
            perform outbox.refuse(format('%s%s: %s elements, the limit is 500', place, name, parts), 'put them into one value');
        end if;
    end loop;
end
$$;
comment on function outbox.check_parts is 'Refuses more arguments, headers or fields than a request to Temporal should have.';

create function outbox.check_headers(place text, headers json) returns void
language plpgsql
as $$
declare
    name  text;
begin
    select h.key into name
    from json_each(headers) as h
    where h.key = '_tracer-data' or h.key in ('traceparent', 'tracestate', 'baggage') and json_typeof(h.value) <> 'string'
    limit 1;
    if not found then
        return;
    elsif name = '_tracer-data' then
        perform outbox.refuse(place || 'headers: _tracer-data is written by the relay', 'give traceparent, tracestate and baggage');
    end if;
    perform outbox.refuse(format('%sheaders: %s must be a string', place, name), 'leave it out for none');
end
$$;
comment on function outbox.check_headers is 'Refuses headers that would break the tracing interceptors of every worker that reads them.';
