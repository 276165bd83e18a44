-- A page of the rows that were moved, with the state of their messages: waiting, in flight, dead, an outcome of the history, or null if
-- the outbox has no record any more. $1 bigint: import · $2 text: identity after which the page begins · $3 int: rows
select
    r.identity, r.message_id, r.namespace, r.workflow, r.workflow_id,
    case
        when m.leased_until > clock_timestamp() then 'in flight'
        when m.message_id is not null then 'waiting'
        when d.message_id is not null then 'dead'
        else h.outcome
    end as fate,
    coalesce(m.claimed_at, d.claimed_at, h.claimed_at) is not null
        or outbox.claim_may_be_lost(coalesce(greatest(m.created_at, m.available_at), h.due_first)) as tried,
    coalesce(m.errors, d.errors) -> -1 ->> 'detail' as error
from (
    select * from outbox.imported i where i.import_id = $1 and i.identity > $2::text collate "C" order by i.identity limit $3
) r
left join outbox.message m using (message_id)
left join outbox.dead_letter d on d.message_id = r.message_id
left join lateral (
    select s.outcome, s.claimed_at,
           case when s.settled_at >= (select u.since from outbox.uptime u) then greatest(s.created_at, s.available_at) end as due_first
    from outbox.history s
    where s.message_id = r.message_id
    order by s.settled_at desc
    limit 1
) h on true
order by r.identity
