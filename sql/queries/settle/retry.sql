-- Put messages back with an error on their record, due after a delay. An attempt is counted if the message itself failed.
-- The worker has survived the message, so `deliveries` starts at 0 again. Returns the leases that were lost.
--
-- $1 uuid[]: messages · $2 bigint[]: lease tokens · $3 float[]: delays in seconds · $4 bool[]: count an attempt · $5 text[]: kinds of
-- error · $6 text[]: details · $7 timestamptz: now, null for the server's
with answer as materialized (
    select a.*, jsonb_build_object('at', coalesce($7, now()), 'kind', a.kind, 'detail', a.detail, 'counted', a.counted) as error
    from unnest($1::uuid[], $2::bigint[], $3::float8[], $4::bool[], $5::text[], $6::text[])
        as a (message_id, lease_token, delay_s, counted, kind, detail)
),
settled as (
    update outbox.message m
    set due_at = coalesce($7, now()) + make_interval(secs => a.delay_s),
        ready = not m.restricted,  -- a restricted message is not in its lane until it is due
        leased_until = null,
        lease_token = null,
        in_flight = false,
        parked = null,  -- its delay is its own: a change of a limit does not shorten it
        worker_id = null,
        deliveries = 0,
        attempts = m.attempts + a.counted::int,
        -- The first error often shows the cause, so it stays; the oldest of the others is dropped.
        errors = case when jsonb_array_length(m.errors) >= 20 then m.errors - 1 else m.errors end || a.error
    from answer a
    where m.message_id = any (array[a.message_id]) and m.lease_token = a.lease_token  -- each by its index: ADR 10
    returning m.message_id, a.lease_token as held
)
select a.message_id, a.lease_token
from answer a
where not exists (select from settled s where s.message_id = a.message_id and s.held = a.lease_token)
