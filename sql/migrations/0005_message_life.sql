-- Every message's life in one place, in the words that people use.

create view outbox.message_life as
select
    m.message_id,
    case
        when m.leased_until > now() then 'processing'
        when m.due_at = 'infinity' then 'waiting'
        when m.due_at > now() then 'scheduled'
        else 'pending'
    end as status,
    m.topic,
    m.key,
    m.target ->> 'operation' as operation,
    m.target ->> 'workflow' as workflow,
    m.target ->> 'workflow_id' as workflow_id,
    null::text as run_id,
    w.name as worker,
    m.created_at as enqueued_at,
    m.available_at,
    m.claimed_at,
    null::timestamptz as settled_at,
    case when m.leased_until is null and m.due_at > now() and m.due_at < 'infinity' then m.due_at end as next_try_at,
    m.deliveries,
    m.attempts,
    null::text as outcome,
    m.errors -> -1 ->> 'detail' as last_error
from outbox.message m
left join outbox.worker w on w.worker_id = m.worker_id and m.leased_until is not null
union all
select
    h.message_id, case when h.outcome in ('cancelled', 'discarded') then h.outcome else 'completed' end, h.topic, h.key, h.operation, h.workflow, h.workflow_id, h.run_id, w.name,
    h.created_at, h.available_at, h.claimed_at, h.settled_at, null, h.deliveries, h.attempts, h.outcome, null
from outbox.history h
left join outbox.worker w on w.worker_id = h.worker_id
union all
select
    d.message_id, 'failed', d.topic, d.key, d.target ->> 'operation', d.target ->> 'workflow', d.target ->> 'workflow_id', null, w.name,
    d.created_at, d.available_at, d.claimed_at, d.died_at, null, d.deliveries, d.attempts, d.reason, d.errors -> -1 ->> 'detail'
from outbox.dead_letter d
left join outbox.worker w on w.worker_id = d.worker_id;

comment on view outbox.message_life is
    'Each message with its status (pending, scheduled, waiting, processing, completed, failed, cancelled, discarded), its worker, its workflow and run, and the time of each step.';

-- The view by itself reads the whole history for a workflow id, a key, a topic, or the latest few. An index on any of them would make each
-- settlement dearer; the index on message ids is there, and ids of version 7 begin with their time.
create function outbox.recent(age interval default interval '10 minutes') returns setof outbox.message_life
language sql stable
begin atomic
    select l.*
    from outbox.message_life l
    where l.message_id >= encode(
        substring(int8send((extract(epoch from now() - age) * 1000)::bigint) from 3) || '\x00000000000000000000'::bytea, 'hex')::uuid;
end;
comment on function outbox.recent(age interval) is
    'message_life of what was enqueued within this age, by the time in its message id: it reads no older history. Ids of your own must be UUIDs of version 7.';
