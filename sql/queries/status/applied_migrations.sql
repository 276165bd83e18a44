-- Whether this session may write, and which migrations were applied: all that a worker's readiness needs, in one statement.
select
    current_setting('transaction_read_only')::bool as read_only,
    (select coalesce(json_agg(json_build_array(version, name, checksum, serves) order by version), '[]') from outbox.migration) as migrations
