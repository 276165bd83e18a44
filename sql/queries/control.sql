-- What people have switched, and what they have paused: for every worker to obey.
select
    (select coalesce(jsonb_object_agg(name, value), '{}') from outbox.control)::text as switches,
    (select coalesce(json_agg(json_build_array(topic, key)), '[]') from outbox.pause)::text as pauses
