-- Move delivered messages from the hot table to the history, each only if it is still held under the given token.
-- Returns the leases that were not: the message had passed to somebody else, and nothing was written for them.
--
-- $1 uuid[]: messages · $2 bigint[]: lease tokens · $3 text[]: workflow ids · $4 text[]: run ids · $5 bool[]: duplicate of another's
-- delivery · $6 bool: keep history · $7 timestamptz: now, null for the server's
with answer as materialized (
    select *
    from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bool[])
        as a (message_id, lease_token, workflow_id, run_id, duplicate)
),
settled as (
    delete from outbox.message m
    using answer a
    where m.message_id = a.message_id and m.lease_token = a.lease_token
    returning m.*, m.lease_token as held, a.workflow_id, a.run_id, a.duplicate
),
kept as (
    insert into outbox.history
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key,
         dedup_key, operation, workflow, workflow_id, run_id)
    select message_id, seq, created_at, available_at, claimed_at, coalesce($7, now()), worker_id, deliveries, attempts,
           case when duplicate then 'duplicate' else 'delivered' end, topic, key,
           dedup_key, target ->> 'operation', target ->> 'workflow', workflow_id, run_id
    from settled
    where $6::bool
),
remembered as (
    insert into outbox.delivered_key as d (dedup_key, message_id, until)
    select dedup_key, message_id, coalesce($7, now()) + dedup_window
    from settled
    where dedup_key is not null and dedup_window > interval '0'
    on conflict (dedup_key) do update set message_id = excluded.message_id, until = excluded.until
)
select a.message_id, a.lease_token
from answer a
where not exists (select from settled s where s.message_id = a.message_id and s.held = a.lease_token)
