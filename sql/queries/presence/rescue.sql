-- End the leases of dead workers, and wake whoever listens. Returns the dead by name, and how many messages each of them held.
--
-- Whoever has come back since, or is being rescued by another worker, is left alone. Deliveries stay counted, because they are evidence, and
-- the token stays, so that a worker that was taken for dead may settle until somebody else claims. The table is read once, from end to end.
--
-- $1 bigint[]: workers · $2 bigint[]: the locks that nobody held (presence/absent.sql) · $3 timestamptz: now, null for the server's
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
