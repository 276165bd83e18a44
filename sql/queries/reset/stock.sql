-- What a reset would destroy, as one JSON object. Each count ends at $1, so that it is quick. $1 int: limit
select json_build_object(
    'messages', (select count(*) from (select from outbox.message limit $1) x),
    'dead_letters', (select count(*) from (select from outbox.dead_letter limit $1) x),
    'history', (select count(*) from (select from outbox.history limit $1) x),
    'dedup_keys', (select count(*) from (select from outbox.delivered_key limit $1) x),
    'imported', (select count(*) from (select from outbox.imported limit $1) x),
    'rules', (select count(*) from outbox.pause) + (select count(*) from outbox.topic_limit) + (select count(*) from outbox.control),
    'captured', (select coalesce(json_agg(distinct c.source::text), '[]') from outbox.captures c))
