-- Pauses and limits in force, as one JSON object. It reads no message.
select json_build_object(
    'pauses', (
        select coalesce(json_agg(json_build_object('rule_id', rule_id, 'name', coalesce('topic ' || topic, 'key ' || key, 'everything'), 'paused_by', paused_by, 'for_s', extract(epoch from now() - paused_at))
                                 order by paused_at), '[]')
        from outbox.pause),
    'limits', (
        select coalesce(json_agg(json_build_object('topic', topic, 'rate', rate, 'burst', burst,
                                                   'behind_s', greatest(0, extract(epoch from nullif(given_until, '-infinity') - now()))) order by topic), '[]')
        from outbox.topic_limit)
)
