-- Whole dead letters, with the name of the worker that buried them, the latest first. $1 uuid[]: messages
select
    d.message_id, d.seq, d.topic, d.key, d.dedup_key, d.reason, d.errors -> -1 ->> 'kind' as kind, d.errors -> -1 ->> 'detail' as detail,
    d.attempts, d.deliveries, d.priority, d.created_at, d.available_at,
    least(d.claimed_at, (d.errors -> 0 ->> 'at')::timestamptz) as first_tried_at, d.claimed_at, d.died_at,
    w.name as worker, d.target, d.headers, d.payload, d.errors
from outbox.dead_letter d
left join outbox.worker w on w.worker_id = d.worker_id
where d.message_id = any ($1::uuid[])
order by d.died_at desc, d.seq desc
