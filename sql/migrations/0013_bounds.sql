-- The bounds of one message, checked where it is enqueued: what lies outside them would stop its worker, or die at its first delivery.
--
-- Times lie between 1970 and 2200, intervals between 0 and 100 years. So no producer can write an infinite time, and `due_at = infinity`
-- stays the outbox's own mark for "waits for its turn".

create function outbox.check_time(place text, name text, value timestamptz) returns void
language plpgsql
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
language plpgsql
as $$
begin
    if extract(epoch from value) not between 0 and 3155760000 then
        perform outbox.refuse(format('%s%s is %s, it must lie between 0 and 100 years', place, name, value));
    end if;
end
$$;
comment on function outbox.check_interval is 'Refuses an interval that is negative, infinite, or longer than 100 years.';

create function outbox.check_durations(place text, durations json) returns void
language plpgsql
as $$
declare
    name  text;
    value text;
begin
    for name, value in
        select d.key, d.value::text
        from json_each(durations) as d
        where d.key = any ('{execution_timeout_s,run_timeout_s,task_timeout_s,start_delay_s,initial_interval_s,maximum_interval_s}')
    loop
        continue when value = 'null';
        -- The length and the exponent are bounded first, so that the cast cannot fail.
        if value !~ '^[0-9]{1,30}([.][0-9]{1,30})?([eE][-+]?[0-9]{1,2})?$' or value::numeric > 3155760000 then
            perform outbox.refuse(format('%s: %s is %s, it must be a number of seconds between 0 and 3155760000 (100 years)',
                                         place, name, left(value, 40)));
        end if;
    end loop;
end
$$;
comment on function outbox.check_durations is 'Refuses durations of a target, or of its retry_policy, that are no seconds between 0 and 100 years.';

-- Sizes are those of the JSON as text, in bytes. Temporal takes 2 MiB for a payload and for a memo, and 4 MiB for a request.
create function outbox.check_size(place text, payload json, headers json, target json) returns void
language plpgsql
as $$
begin
    if octet_length(payload::text) > 2096128 then  -- 2 MiB, less what the payload's encoding adds
        perform outbox.refuse(format('%spayload is %s bytes long, the limit is 2096128', place, octet_length(payload::text)),
                              'store it elsewhere and send its address');
    elsif octet_length(headers::text) > 65536 then
        perform outbox.refuse(format('%sheaders are %s bytes long, the limit is 65536', place, octet_length(headers::text)));
    elsif octet_length(target::text) > 1310720 then
        perform outbox.refuse(format('%starget is %s bytes long, the limit is 1310720', place, octet_length(target::text)),
                              'store large values elsewhere and send their address');
    end if;
    perform outbox.check_depth(place, 'payload', payload), outbox.check_depth(place, 'headers', headers),
            outbox.check_depth(place, 'target', target);
end
$$;
comment on function outbox.check_size is 'Refuses JSON that is too long or too deep. Called for what is long, or has many brackets.';

-- Python's json reads about 990 levels less the depth of its caller, orjson 1024, Java's Jackson 1000, PHP 512.
create function outbox.check_depth(place text, name text, value json) returns void
language plpgsql
as $$
declare
    written constant text    := value::text;
    opened  constant integer := octet_length(written) - octet_length(replace(replace(written, '[', ''), '{', ''));
    compact text;
    fault   text;
begin
    if opened <= 500 then
        return;
    end if;
    -- Of siblings only one can be on the way to the deepest value. In text such a pattern takes off no more than the bracket that it counted.
    compact := replace(written, ', ', ',');
    if opened - (2 * octet_length(compact) - octet_length(replace(compact, '},{', '')) - octet_length(replace(compact, '],[', ''))) / 3 <= 500 then
        return;
    end if;
    if replace(written, E'\\u0000', E'\\u0001')::jsonb @? 'strict $.**{501}' then
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
    -- A path that leads nowhere has the text read to its end, escapes included. A payload is handed on as it is, so \u0000 may stand in it.
    name := 'payload'; perform replace(payload::text, E'\\u0000', E'\\u0001')::json -> 0;
    name := 'headers'; perform headers -> 0;
    name := 'target'; perform target -> 0;
exception when data_exception then
    get stacked diagnostics fault = pg_exception_detail;
    perform outbox.refuse(format('%s%s is no valid Unicode: %s', place, name, fault), 'leave the character out, or send it as base64');
end
$$;
comment on function outbox.check_escapes is 'Refuses half of a surrogate pair, which is no character, and in headers and targets the character U+0000.';

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

create function outbox.check_search_attributes(place text, attributes jsonb) returns void
language plpgsql
as $$
begin
    if pg_column_size(attributes) > 65536 then
        perform outbox.refuse(format('%s: search_attributes are %s bytes long, the limit is 65536', place, pg_column_size(attributes)));
    elsif attributes @? 'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))' then
        perform outbox.refuse(place || ': search_attributes hold a number that is too large for a double', 'send it as a keyword, in quotes');
    end if;
end
$$;
comment on function outbox.check_search_attributes is 'Refuses search attributes that Temporal cannot read. It parses them, unlike payloads and memos.';
