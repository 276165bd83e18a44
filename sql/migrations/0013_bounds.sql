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
