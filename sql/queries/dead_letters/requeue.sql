-- Put dead letters back among the messages, with the same id, number and errors. All counters start at 0, and they are due now.
-- A dead letter stays if an unsettled message has its id or dedup_key. Returns each that was dead, and whether it was put back.
--
-- $1 uuid[]: messages
with chosen as materialized (
    select * from outbox.dead_letter d where d.message_id = any ($1::uuid[]) order by d.seq for update
),
put_back as (
    insert into outbox.message
        (message_id, seq, due_at, available_at, created_at, claimed_at, bytes, priority, topic, tenant, key, restricted, dedup_key, dedup_window,
         expires_at, on_expiry, target, headers, payload, errors, enqueued_by)
    overriding system value
    select message_id, seq, outbox.due_at(now(), priority, now()), now(), created_at, claimed_at, octet_length(concat(payload, headers, target)), priority, topic, tenant, key,
           tenant is not null or key is not null, dedup_key, dedup_window, expires_at, on_expiry, target, headers, payload,
           errors, enqueued_by
    from chosen
    order by seq
    on conflict do nothing
    returning message_id
),
buried as (
    delete from outbox.dead_letter d using put_back p where d.message_id = p.message_id
)
select c.message_id, p.message_id is not null as requeued
from chosen c
left join put_back p using (message_id)
