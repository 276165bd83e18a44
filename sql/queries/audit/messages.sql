-- A page of the messages that were tried and may start a workflow, and were settled, buried or last claimed within a time.
-- Ordered by message id. Each table gives its own page along the index on its ids, so at most three pages are sorted. A producer may
-- make several messages of one id; they stay together, so a page may be longer than asked.
--
-- $1 timestamptz: since · $2 timestamptz: until · $3 uuid: the last message of the page before · $4 int: messages
with settled as (
    select h.message_id, h.outcome as status, h.settled_at as at, h.claimed_at as tried_at, h.topic, h.operation, h.workflow,
           h.workflow_id, h.run_id, h.namespace, h.task_queue
    from outbox.history h
    where h.message_id > $3 and h.settled_at >= $1 and h.settled_at < $2 and h.claimed_at is not null
      and (h.operation is null or h.operation in ('start_workflow', 'signal_with_start_workflow'))
    order by h.message_id
    fetch first $4 rows with ties
),
dead as (
    select d.message_id, 'dead', d.died_at, d.claimed_at, d.topic, d.target ->> 'operation', d.target ->> 'workflow',
           d.target ->> 'workflow_id', null, d.target ->> 'namespace', d.target ->> 'task_queue'
    from outbox.dead_letter d
    where d.message_id > $3 and d.died_at >= $1 and d.died_at < $2
      and (d.target is null or d.target ->> 'operation' in ('start_workflow', 'signal_with_start_workflow'))
    order by d.message_id
    fetch first $4 rows with ties
),
unsettled as (
    select m.message_id, 'unsettled', m.claimed_at, m.claimed_at, m.topic, m.target ->> 'operation', m.target ->> 'workflow',
           m.target ->> 'workflow_id', null, m.target ->> 'namespace', m.target ->> 'task_queue'
    from outbox.message m
    where m.message_id > $3 and m.claimed_at >= $1 and m.claimed_at < $2
      and (m.target is null or m.target ->> 'operation' in ('start_workflow', 'signal_with_start_workflow'))
    order by m.message_id
    fetch first $4 rows with ties
)
select message_id, status, at, tried_at, topic, operation, workflow, workflow_id, run_id, namespace, task_queue
from (select * from settled union all select * from dead union all select * from unsettled) e
order by message_id
fetch first $4 rows with ties
