-- Workers that have not ended in order, as one JSON object. "lives" comes from the lock that a worker's session holds
-- (presence/assert_presence.sql); null if it has none.
select json_build_object(
    'workers', (
        select coalesce(json_agg(json_build_object(
            'worker_id', worker_id, 'name', name, 'version', version, 'state', state, 'started_at', started_at,
            'seen_s_ago', extract(epoch from now() - seen_at), 'detail', detail,
            'lives', case when state = 'dead' then false
                          when presence is not null and not pg_is_in_recovery() then not pg_try_advisory_xact_lock_shared(presence) end)
            order by worker_id), '[]')
        from outbox.worker where stopped_at is null and seen_at > now() - interval '1 hour')
)
