-- Move delivered messages from the hot table to the history, each only if it is still held under the given token.
-- Returns the leases that were lost: another worker has claimed the message, and nothing was written.
--
-- What the history keeps of the targets comes from the worker, which reads them faster. Few targets differ, so each message has only the
-- number of its own in $10 to $13.
--
-- $1 uuid[]: messages · $2 text: lease tokens · $3 text: workflow ids · $4 text: run ids, each a list with $5 between its items, and
-- '' for none · $6 uuid[]: which of them are duplicates of another's delivery · $7 bool: keep history · $8 timestamptz: now, null for
-- the server's · $9 text: numbers of targets, a list as the others · text[]: $10 operations, $11 workflow types, $12 namespaces, $13 task
-- queues
with settled as (
    delete from outbox.message m
    using unnest($1::uuid[], string_to_array($2, $5)::bigint[], string_to_array($3, $5, ''), string_to_array($4, $5, ''),
                 string_to_array($9, $5)::int[])
        as a (message_id, lease_token, workflow_id, run_id, action)
    where m.message_id = any (array[a.message_id]) and m.lease_token = a.lease_token  -- each by its index: ADR 10
    returning
        m.message_id, m.seq, m.created_at, m.available_at, m.claimed_at, m.worker_id, m.deliveries, m.attempts, m.topic, m.key,
        m.dedup_key, m.dedup_window, m.lease_token, a.workflow_id, a.run_id, a.action
),
kept as (
    insert into outbox.history
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key,
         dedup_key, operation, workflow, workflow_id, run_id, namespace, task_queue)
    select message_id, seq, created_at, available_at, claimed_at, coalesce($8, now()), worker_id, deliveries, attempts,
           case when message_id = any ($6::uuid[]) then 'duplicate' else 'delivered' end, topic, key,
           dedup_key, ($10::text[])[action], ($11::text[])[action], workflow_id, run_id, ($12::text[])[action], ($13::text[])[action]
    from settled
    where $7::bool
),
remembered as (
    insert into outbox.delivered_key as d (dedup_key, message_id, until)
    select dedup_key, message_id, coalesce($8, now()) + dedup_window
    from settled
    where dedup_key is not null and dedup_window > interval '0'
    on conflict (dedup_key) do update set message_id = excluded.message_id, until = excluded.until
)
select a.message_id, a.lease_token
from unnest($1::uuid[], string_to_array($2, $5)::bigint[]) as a (message_id, lease_token)
where (select count(*) from settled) < cardinality($1)
  and not exists (select from settled s where s.message_id = a.message_id and s.lease_token = a.lease_token)
