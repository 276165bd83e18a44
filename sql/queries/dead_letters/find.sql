-- The dead letters that match, the latest first, with what decides whether one may be put back: whether an unsettled message has its id
-- or dedup_key, how long ago it was first tried, whether a repeat could start a workflow (without a target only the sink knows), and
-- its namespace.
--
-- $1 text: topic, exact or prefix.* · $2 text: kind of the last error · $3 text: reason · $4 text: key · $5 float: dead for more than
-- so many seconds · $6 float: dead for less · $7 uuid[]: messages · $8 int: limit. Null matches all.
select
    d.message_id,
    d.seq,
    extract(epoch from now() - least(d.claimed_at, (d.errors -> 0 ->> 'at')::timestamptz))::float8 as first_tried_s_ago,
    coalesce(d.target ->> 'operation', 'start_workflow') in ('start_workflow', 'signal_with_start_workflow') as starts,
    d.target ->> 'namespace' as namespace,
    exists (select from outbox.message m where m.message_id = d.message_id)
        or exists (select from outbox.message m where m.dedup_key = d.dedup_key) as living
from outbox.dead_letters($1, $2, $3, $4, make_interval(secs => $5), make_interval(secs => $6), $7) d
order by d.died_at desc, d.seq desc
limit $8
