-- Delete dead letters, and leave a line of each in the history. A start may have succeeded, and without the line the audit would report
-- its workflow as one without a message. Returns the ids that were there. $1 uuid[]: messages
with chosen as materialized (
    select d.message_id from outbox.dead_letter d where d.message_id = any ($1::uuid[]) order by d.seq for update
),
discarded as (
    delete from outbox.dead_letter d using chosen c where d.message_id = c.message_id
    returning d.*
),
kept as (
    insert into outbox.history
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key, dedup_key,
         operation, workflow, workflow_id)
    select message_id, seq, created_at, available_at, claimed_at, now(), worker_id, deliveries, attempts, 'discarded', topic, key, dedup_key,
           target ->> 'operation', target ->> 'workflow', target ->> 'workflow_id'
    from discarded
)
select message_id from discarded
