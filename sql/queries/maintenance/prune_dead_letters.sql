-- Delete old dead letters, except those that are being put back now, and leave a line of each in the history, as dead_letters/discard.sql
-- does. Returns how many. $1 timestamptz: died before · $2 int: limit
with chosen as materialized (
    select d.message_id from outbox.dead_letter d where d.died_at < $1 order by d.died_at limit $2 for update skip locked
),
pruned as (
    delete from outbox.dead_letter d using chosen c where d.message_id = c.message_id
    returning d.*
),
kept as (
    insert into outbox.history
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key, dedup_key,
         operation, workflow, workflow_id)
    select message_id, seq, created_at, available_at, claimed_at, now(), worker_id, deliveries, attempts, 'discarded', topic, key, dedup_key,
           target ->> 'operation', target ->> 'workflow', target ->> 'workflow_id'
    from pruned
)
select count(*) from pruned
