-- Give leases back as if they had never been taken: due at once, in the old order, no delivery counted.
-- Wakes the workers that listen, as an insert would. Returns the leases that were lost.
--
-- $1 uuid[]: messages · $2 bigint[]: lease tokens · $3 timestamptz: now, null for the server's
with answer as materialized (
    select * from unnest($1::uuid[], $2::bigint[]) as a (message_id, lease_token)
),
settled as (
    update outbox.message m
    set due_at = least(outbox.due_at(m.available_at, m.priority, m.created_at), coalesce($3, now())),
        ready = true,
        leased_until = null,
        lease_token = null,
        in_flight = false,
        worker_id = null,
        deliveries = greatest(m.deliveries - 1, 0)
    from answer a
    where m.message_id = any (array[a.message_id]) and m.lease_token = a.lease_token  -- each by its index: ADR 10
    returning m.message_id, a.lease_token as held, outbox.wake()
)
select a.message_id, a.lease_token
from answer a
where not exists (select from settled s where s.message_id = a.message_id and s.held = a.lease_token)
