-- End the leases of dead workers, and wake the workers that listen. Returns the dead by name, and how many messages each of them held.
--
-- A worker that has come back, or that another worker rescues now, is left out. Deliveries stay counted, because they are evidence. The
-- token stays, so that a worker that was wrongly taken for dead can settle until another one claims. The table is read once, completely.
--
-- $1 bigint[]: workers · $2 bigint[]: their locks that were free (presence/absent.sql) · $3 timestamptz: now, null for the server's
with moment as materialized (
    select coalesce($3, now()) as now
),
found as materialized (
    select w.worker_id, w.name, w.presence
    from outbox.worker w
    where (w.worker_id, w.presence) in (select * from unnest($1::bigint[], $2::bigint[]))
    for update skip locked
),
dead as materialized (
    select f.worker_id, f.name from found f where pg_try_advisory_xact_lock_shared(f.presence)
),
forgotten as (
    update outbox.worker w set presence = null, state = 'dead' from dead d where w.worker_id = d.worker_id
),
ended as (
    update outbox.message m
    set leased_until = (select now from moment),
        due_at = case when m.restricted then (select now from moment) else m.due_at end
    where exists (select from dead)
      and m.worker_id = any (array(select d.worker_id from dead d)) and m.leased_until > (select now from moment)
    returning m.worker_id
),
woken as materialized (
    select outbox.wake() from ended limit 1
)
select d.name, (select count(*) from ended e where e.worker_id = d.worker_id) as messages, (select count(*) from woken) as woken
from dead d
order by d.worker_id
