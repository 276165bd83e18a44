-- Take messages back before their delivery, and report on each. `cancelled` is true; false if a worker holds the message; null if no
-- unsettled message has the id. `life` is its state afterwards, if it exists.
--
-- `tried` is whether it may have been delivered before: it was claimed, or a crash may have erased that.
--
-- If a dead letter and a settled message have the same id, the newest is reported. $1 uuid[]: messages
with asked as materialized (
    select i.message_id, outbox.cancel(i.message_id) as cancelled
    from (select distinct message_id from unnest($1::uuid[]) as u (message_id) order by message_id) i
)
select a.message_id, a.cancelled, l.status, l.settled_at, l.outcome, l.tried
from asked a
left join lateral (
    select l.status, l.settled_at, l.outcome,
           case when l.claimed_at is not null then 'tried'
                when outbox.claim_may_be_lost(greatest(l.enqueued_at, l.available_at)) then 'perhaps' end as tried
    from outbox.message_life l
    where l.message_id = a.message_id
    order by l.settled_at desc nulls first
    limit 1
) l on true
