-- Messages by their ids, in all tables and of all operations. $1 uuid[]: messages
select message_id, status, at, tried_at, topic, operation, workflow, workflow_id, run_id, namespace, task_queue
from (
    select h.message_id, h.outcome as status, h.settled_at as at, h.claimed_at as tried_at, h.topic, h.operation, h.workflow,
           h.workflow_id, h.run_id, h.namespace, h.task_queue
    from outbox.history h
    where h.message_id = any ($1::uuid[])
    union all
    select d.message_id, 'dead', d.died_at, d.claimed_at, d.topic, d.target ->> 'operation', d.target ->> 'workflow',
           d.target ->> 'workflow_id', null, d.target ->> 'namespace', d.target ->> 'task_queue'
    from outbox.dead_letter d
    where d.message_id = any ($1::uuid[])
    union all
    select m.message_id, 'unsettled', coalesce(m.claimed_at, m.created_at), m.claimed_at, m.topic, m.target ->> 'operation',
           m.target ->> 'workflow', m.target ->> 'workflow_id', null, m.target ->> 'namespace', m.target ->> 'task_queue'
    from outbox.message m
    where m.message_id = any ($1::uuid[])
) e
