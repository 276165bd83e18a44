-- The checks of a target, which says what Temporal does with a message. check_message calls them.

create function outbox.check_target(place text, given json) returns void
language plpgsql
as $$
declare
    target      constant jsonb := given;  -- read once; this also refuses characters that PostgreSQL cannot store, such as \u0000
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
    elsif '' in (target ->> 'namespace', target ->> 'task_queue', target ->> 'run_id') then
        perform outbox.refuse(
            format('%s%s: %s must not be empty', place, operation,
                   case '' when target ->> 'namespace' then 'namespace' when target ->> 'task_queue' then 'task_queue' else 'run_id' end),
            'leave it out, or pass null, for the default');
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
    if target @? 'strict $.* ? (@.type() != "string")'
       and (target - '{execution_timeout_s,run_timeout_s,task_timeout_s,start_delay_s,retry_policy,memo,search_attributes}'::text[])
           @? 'strict $.* ? (@.type() != "string")' then
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

create function outbox.check_word(place text, name text, value text, words text[]) returns void
language plpgsql strict  -- a value that is missing costs nothing
as $$
begin
    if value <> all (words) then
        perform outbox.refuse(format('%s: %s is %L', place, name, value), 'use ' || array_to_string(words, ', '));
    end if;
end
$$;

create function outbox.check_policies(place text, operation text, target jsonb) returns void
language plpgsql
as $$
begin
    perform outbox.check_word(place, 'id_reuse_policy', target ->> 'id_reuse_policy',
                              '{reject_duplicate,allow_duplicate,allow_duplicate_failed_only}'),
            outbox.check_word(place, 'id_conflict_policy', target ->> 'id_conflict_policy',
                              case operation when 'signal_with_start_workflow' then '{use_existing,terminate_existing}'
                                             else '{fail,use_existing,terminate_existing}' end::text[]),
            outbox.check_word(place, 'on_duplicate', target ->> 'on_duplicate', '{accept,reject}'),
            outbox.check_word(place, 'arguments', target ->> 'arguments', '{none,one,many}'),
            outbox.check_word(place, 'signal_arguments', target ->> 'signal_arguments', '{none,one,many}');
    if target ->> 'id_conflict_policy' = 'terminate_existing' and coalesce(target ->> 'id_reuse_policy', 'reject_duplicate') = 'reject_duplicate' then
        perform outbox.refuse(format('%s: id_conflict_policy terminate_existing contradicts id_reuse_policy reject_duplicate', place),
                              'choose another id_reuse_policy');
    end if;
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
    if target ? 'retry_policy' then
        perform outbox.check_retry_policy(place || ': retry_policy', target -> 'retry_policy');
    end if;
    if target ? 'search_attributes' then
        perform outbox.check_search_attributes(place, target -> 'search_attributes');
    end if;
end
$$;

-- Its durations are checked with the target's (check_durations).
create function outbox.check_retry_policy(place text, policy jsonb) returns void
language plpgsql
as $$
declare
    stranger text;
    attempts constant jsonb := policy -> 'maximum_attempts';
begin
    select name into stranger
    from jsonb_object_keys(policy) as name
    where name <> all ('{initial_interval_s,backoff_coefficient,maximum_interval_s,maximum_attempts,non_retryable_error_types}')
    limit 1;
    if found then
        perform outbox.refuse(format('%s: unknown name %L', place, stranger));
    elsif policy @? 'strict $.backoff_coefficient ? (@.type() != "null" && (@.type() != "number" || @ < 1 || @ > 1e308))' then
        perform outbox.refuse(place || ': backoff_coefficient must be a number of at least 1');
    elsif attempts <> 'null' and (attempts::text !~ '^[0-9]{1,10}$' or attempts::text::bigint > 2147483647) then
        perform outbox.refuse(place || ': maximum_attempts must be a whole number between 0 and 2147483647', 'use 0 for any number');
    elsif policy ? 'non_retryable_error_types' and (
        jsonb_typeof(policy -> 'non_retryable_error_types') <> 'array'
        or policy @? 'strict $.non_retryable_error_types[*] ? (@.type() != "string")') then
        perform outbox.refuse(place || ': non_retryable_error_types must be an array of strings');
    -- What is so small that it is not 0 only as it is written, check_durations refuses.
    elsif policy @? 'lax $ ? (!(@.maximum_attempts == 1) && @.maximum_interval_s > 1e-200 && (
                         @.maximum_interval_s < @.initial_interval_s || (@.maximum_interval_s < 1 && !(@.initial_interval_s > 0))))' then
        perform outbox.refuse(place || ': maximum_interval_s is less than initial_interval_s, which is 1 by default');
    end if;
end
$$;

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
        -- Length and exponent are checked first, so that the cast cannot fail.
        if value !~ '^[0-9]{1,30}([.][0-9]{1,30})?([eE][-+]?[0-9]{1,2})?$' or value::numeric > 3155760000 then
            perform outbox.refuse(format('%s: %s is %s, it must be a number of seconds between 0 and 3155760000 (100 years)',
                                         place, name, left(value, 40)));
        end if;
    end loop;
end
$$;
comment on function outbox.check_durations is 'Refuses durations of a target, or of its retry_policy, that are not seconds between 0 and 100 years.';
