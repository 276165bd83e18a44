-- What is older than its retention, counted exactly, as one JSON object. `…_before` are the limits: with them, exactly what was counted
-- here is pruned later. $1 float: seconds to keep history · $2 float: seconds to keep dead letters, null to keep all
with old as materialized (
    select outbox.droppable(now() - make_interval(secs => $1)) as history, now() - make_interval(secs => $2) as dead_letter
)
select json_build_object(
    'history_before', old.history,
    'dead_before', old.dead_letter,
    'days', (
        select coalesce(json_agg(json_build_object(
            'part', o.part,
            'messages', (select count(*) from outbox.history h where h.settled_at >= o.begins and h.settled_at < o.ends),
            'bytes', pg_total_relation_size(to_regclass('outbox.' || o.part))) order by o.part), '[]')
        from outbox.old_history_partitions(old.history) o),
    'strays', (select count(*) from outbox.history_default h where h.settled_at < old.history),
    'dead_letters', (select count(*) from outbox.dead_letter d where d.died_at < old.dead_letter),
    'dedup_keys', (select count(*) from outbox.delivered_key k where k.until < now()),
    'workers', (
        select count(*) from outbox.worker w
        where coalesce(w.stopped_at, w.seen_at) < now() - make_interval(secs => greatest($1, 86400))))
from old
