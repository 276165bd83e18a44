-- The switches of the control table as one JSON object.
select coalesce(jsonb_object_agg(name, value), '{}')::text from outbox.control
