-- Everything a person wants to see first, as one JSON object. Counts of messages are exact; each is one pass over the hot table.
select json_build_object(
    'messages', (
        select json_build_object(
            'pending', count(*) filter (where due_at <= now() and (leased_until is null or leased_until <= now())),
            'processing', count(*) filter (where leased_until > now()),
            'scheduled', count(*) filter (where due_at > now() and due_at < 'infinity' and leased_until is null),
            'waiting', count(*) filter (where due_at = 'infinity'),
            'retrying', count(*) filter (where attempts > 0 or errors <> '[]'),
            'oldest_pending_s', extract(epoch from now() - min(available_at) filter (where available_at <= now() and isfinite(available_at))))
        from outbox.message),
    'blocked_keys', (  -- keys that wait because their first message has failed or is paused
        select coalesce(json_agg(b), '[]') from (
            select h.key, h.message_id, h.parked, h.attempts, h.errors -> -1 ->> 'detail' as last_error,
                   w.waiting - (h.due_at = 'infinity')::int as waiting,
                   extract(epoch from nullif(h.due_at, 'infinity') - now()) as next_try_s
            from (select key, count(*) as waiting from outbox.message where key is not null and due_at = 'infinity' group by key) w,
                 lateral (select * from outbox.message h where h.key = w.key order by h.seq, h.message_id limit 1) h
            where h.errors <> '[]' or h.parked is not null
            order by w.waiting desc limit 5) b),
    'pauses', (
        select coalesce(json_agg(json_build_object('name', coalesce('topic ' || topic, 'key ' || key, 'everything'), 'paused_by', paused_by, 'for_s', extract(epoch from now() - paused_at))
                                 order by paused_at), '[]')
        from outbox.pause),
    'limits', (
        select coalesce(json_agg(json_build_object('topic', topic, 'rate', rate, 'burst', burst,
                                                   'behind_s', greatest(0, extract(epoch from nullif(given_until, '-infinity') - now()))) order by topic), '[]')
        from outbox.topic_limit),
    'dead_letters', (
        select coalesce(json_object_agg(reason, n), '{}') from (select reason, count(*) as n from outbox.dead_letter group by reason) r),
    'completed', (
        select json_build_object(
            'last_minute', count(*) filter (where settled_at > now() - interval '1 minute'),
            'last_hour', count(*),
            'latency_p50_s', percentile_cont(0.5) within group (order by extract(epoch from settled_at - available_at)) filter (where isfinite(available_at)),
            'latency_p99_s', percentile_cont(0.99) within group (order by extract(epoch from settled_at - available_at)) filter (where isfinite(available_at)))
        from outbox.history where settled_at > now() - interval '1 hour' and outcome <> 'cancelled'),
    'workers', (
        select coalesce(json_agg(json_build_object(
            'worker_id', worker_id, 'name', name, 'version', version, 'state', state, 'started_at', started_at,
            'seen_s_ago', extract(epoch from now() - seen_at), 'detail', detail) order by worker_id), '[]')
        from outbox.worker where stopped_at is null and seen_at > now() - interval '1 hour'),
    'errors', (
        select coalesce(json_agg(e), '[]') from (
            select kind, count(*) as messages, max(detail) as example
            from (select errors -> -1 ->> 'kind' as kind, errors -> -1 ->> 'detail' as detail from outbox.message where errors <> '[]'
                  union all select errors -> -1 ->> 'kind', errors -> -1 ->> 'detail' from outbox.dead_letter) x
            group by kind order by count(*) desc limit 5) e)
)
