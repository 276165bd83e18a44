-- The functions that producers call for Temporal, one for each operation. Each writes the target and calls enqueue.

create function outbox.arguments(input json, args json) returns text
language plpgsql
as $$
begin
    if input is not null and args is not null then
        perform outbox.refuse('give either input (one argument) or args (a JSON array of several), not both');
    elsif args is not null and json_typeof(args) <> 'array' then
        perform outbox.refuse('args must be a JSON array', 'use input for a single argument');
    elsif json_array_length(args) > 500 then
        perform outbox.refuse(format('args: %s elements, the limit is 500', json_array_length(args)), 'send one array as input');
    end if;
    return case when args is not null then 'many' when input is not null then 'one' else 'none' end;
end
$$;

create function outbox.seconds(name text, duration interval) returns numeric
language plpgsql immutable strict  -- most calls have no duration, and cost nothing then
as $$
declare
    seconds constant numeric := extract(epoch from duration);
begin
    if seconds not between 0 and 3155760000 then
        perform outbox.check_interval('', name, duration);
    end if;
    return round(seconds, 6);
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
