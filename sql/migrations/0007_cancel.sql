-- Taking a message back before it is delivered, and finding dead letters.

-- A message that nobody has claimed may be settled now: by cancelling it.
alter table outbox.history alter column claimed_at drop not null;
-- Not valid spares a scan of the whole history under a lock: what is in it has passed the narrower check.
alter table outbox.history
    drop constraint history_outcome_check,
    add constraint history_outcome_check check (outcome in ('delivered', 'duplicate', 'cancelled')) not valid;

comment on table outbox.history is
    'Delivered and cancelled messages without their payload, in daily partitions by settled_at, in UTC.';
comment on column outbox.history.outcome is
    '`duplicate`: another message had started that workflow id before. `cancelled`: taken back by outbox.cancel.';

create function outbox.cancel(message_id uuid) returns boolean
language plpgsql
as $$
#variable_conflict use_variable
begin
    with cancelled as (
        delete from outbox.message m
        where m.message_id = message_id and (m.lease_token is null or m.due_at <= clock_timestamp())
        returning m.*
    )
    insert into outbox.history as h
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key,
         dedup_key, operation, workflow, workflow_id)
    select c.message_id, c.seq, c.created_at, c.available_at, c.claimed_at, clock_timestamp(), c.worker_id, c.deliveries, c.attempts,
           'cancelled', c.topic, c.key, c.dedup_key, c.target ->> 'operation', c.target ->> 'workflow', c.target ->> 'workflow_id'
    from cancelled c;
    if found then
        return true;
    end if;
    return (select false from outbox.message m where m.message_id = message_id);
end
$$;
comment on function outbox.cancel(message_id uuid) is
    'Take an unsettled message back. True: it will not be delivered from now on. False: a worker holds it, and it may be on its way. Null: no unsettled message has this id.';

-- Where a dead letter stands, for everything that lists or moves them. Every argument narrows; null does not.
create function outbox.dead_letters(
    topic       text        default null,
    kind        text        default null,
    reason      text        default null,
    key         text        default null,
    older_than  interval    default null,
    newer_than  interval    default null,
    message_ids uuid[]      default null
) returns setof outbox.dead_letter
language sql stable
as $$
    select d.*
    from outbox.dead_letter d
    where (dead_letters.topic is null or d.topic = dead_letters.topic
           or (dead_letters.topic like '%.*' and starts_with(d.topic, left(dead_letters.topic, -1))))
      and (dead_letters.kind is null or d.errors -> -1 ->> 'kind' = dead_letters.kind)
      and (dead_letters.reason is null or d.reason = dead_letters.reason)
      and (dead_letters.key is null or d.key = dead_letters.key)
      and (dead_letters.older_than is null or d.died_at < now() - dead_letters.older_than)
      and (dead_letters.newer_than is null or d.died_at >= now() - dead_letters.newer_than)
      and (dead_letters.message_ids is null or d.message_id = any (dead_letters.message_ids))
$$;
comment on function outbox.dead_letters is
    'Dead letters by topic (exact, or prefix.*), kind of their last error, reason, key, age since their death, and message ids.';

create or replace view outbox.message_life as
select
    m.message_id,
    case
        when m.lease_token is not null and m.due_at > now() then 'processing'
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
    case when m.lease_token is null and m.due_at > now() then m.due_at end as next_try_at,
    m.deliveries,
    m.attempts,
    null::text as outcome,
    m.errors -> -1 ->> 'detail' as last_error
from outbox.message m
left join outbox.worker w on w.worker_id = m.worker_id and m.lease_token is not null
union all
select
    h.message_id, case when h.outcome = 'cancelled' then 'cancelled' else 'completed' end, h.topic, h.key, h.operation, h.workflow,
    h.workflow_id, h.run_id, w.name, h.created_at, h.available_at, h.claimed_at, h.settled_at, null, h.deliveries, h.attempts,
    h.outcome, null
from outbox.history h
left join outbox.worker w on w.worker_id = h.worker_id
union all
select
    d.message_id, 'failed', d.topic, d.key, d.target ->> 'operation', d.target ->> 'workflow', d.target ->> 'workflow_id', null, w.name,
    d.created_at, d.available_at, d.claimed_at, d.died_at, null, d.deliveries, d.attempts, d.reason, d.errors -> -1 ->> 'detail'
from outbox.dead_letter d
left join outbox.worker w on w.worker_id = d.worker_id;

comment on view outbox.message_life is
    'Each message with its status (pending, scheduled, processing, completed, failed, cancelled), its worker, its workflow and run, and the time of each step.';
