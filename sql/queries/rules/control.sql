-- The switches and the pauses, for each worker to follow. `copy` is no switch: it says why the database is a copy.
select
    ((select coalesce(jsonb_object_agg(name, value), '{}') from outbox.control)
        || (select coalesce(jsonb_object_agg('copy', f), '{}') from outbox.home_fault() f where f is not null))::text as switches,
    (select coalesce(json_agg(json_build_array(topic, key)), '[]') from outbox.pause)::text as pauses
