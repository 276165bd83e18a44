-- Move messages to the dead letters, whole, with the error that buried them. Returns the leases that were lost.
--
-- A producer may use a message id again; then the later burial replaces the earlier one. A message that expired with `discard` leaves a
-- line in the history instead.
--
-- $1 uuid[]: messages · $2 bigint[]: lease tokens · $3 text[]: reasons · $4 bool[]: count an attempt · $5 text[]: kinds of error ·
-- $6 text[]: details · $7 timestamptz: now, null for the server's
with answer as materialized (
    select a.*, jsonb_build_object('at', coalesce($7, now()), 'kind', a.kind, 'detail', a.detail, 'counted', a.counted) as error
    from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bool[], $5::text[], $6::text[])
        as a (message_id, lease_token, reason, counted, kind, detail)
),
settled as (
    delete from outbox.message m
    using answer a
    where m.message_id = any (array[a.message_id]) and m.lease_token = a.lease_token  -- each by its index: ADR 10
    returning m.*, m.lease_token as held, a.reason, a.counted, a.error
),
kept as (
    insert into outbox.dead_letter as d
        (message_id, seq, created_at, available_at, claimed_at, died_at, worker_id, deliveries, attempts, priority, reason, topic,
         tenant, key, dedup_key, dedup_window, expires_at, on_expiry, target, headers, payload, errors, enqueued_by)
    select message_id, seq, created_at, available_at, claimed_at, coalesce($7, now()), worker_id, deliveries, attempts + counted::int,
           priority, reason, topic, tenant, key, dedup_key, dedup_window, expires_at, on_expiry, target, headers, payload,
           case when jsonb_array_length(errors) >= 20 then errors - 1 else errors end || error, enqueued_by
    from settled
    where reason <> 'discarded'
    on conflict (message_id) do update
    set seq = excluded.seq, created_at = excluded.created_at, available_at = excluded.available_at, claimed_at = excluded.claimed_at,
        died_at = excluded.died_at, worker_id = excluded.worker_id, deliveries = excluded.deliveries, attempts = excluded.attempts,
        priority = excluded.priority, reason = excluded.reason, topic = excluded.topic, tenant = excluded.tenant,
        key = excluded.key, dedup_key = excluded.dedup_key, dedup_window = excluded.dedup_window, expires_at = excluded.expires_at, on_expiry = excluded.on_expiry,
        target = excluded.target, headers = excluded.headers, payload = excluded.payload,
        errors = excluded.errors, enqueued_by = excluded.enqueued_by
),
discarded as (
    insert into outbox.history
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key, dedup_key,
         operation, workflow, workflow_id)
    select message_id, seq, created_at, available_at, claimed_at, coalesce($7, now()), worker_id, deliveries, attempts, 'discarded',
           topic, key, dedup_key, target ->> 'operation', target ->> 'workflow', target ->> 'workflow_id'
    from settled
    where reason = 'discarded'
)
select a.message_id, a.lease_token
from answer a
where not exists (select from settled s where s.message_id = a.message_id and s.held = a.lease_token)
