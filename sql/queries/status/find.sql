-- The messages with this id, key or workflow id, in any state, the latest first. Unsettled messages and dead letters are searched whole,
-- the history by message id, and for a key or workflow id as far back as $3 says.
-- $1 uuid: message id, null for none · $2 text: key or workflow id · $3 interval: how far to look back · $4 int: how many at most
with found as materialized (
    select m.message_id from outbox.message m where m.message_id = $1 or $2 in (m.key, m.target ->> 'workflow_id')
    union
    select d.message_id from outbox.dead_letter d where d.message_id = $1 or $2 in (d.key, d.target ->> 'workflow_id')
    union
    select h.message_id from outbox.history h where h.message_id = $1
    union
    select r.message_id from outbox.recent($3) r where $2 in (r.key, r.workflow_id)
    order by message_id desc
    limit $4
)
select l.message_id, l.status, l.topic, l.key, l.operation, l.workflow, l.workflow_id, l.run_id, l.worker, l.enqueued_at, l.claimed_at,
       l.settled_at, l.next_try_at, l.deliveries, l.attempts, l.outcome, l.last_error
from found f
cross join lateral (select * from outbox.message_life l where l.message_id = f.message_id) l
order by l.message_id desc, l.settled_at desc nulls first
