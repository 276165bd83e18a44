-- What decides whether this server can be worked with at all, as one JSON object. It needs no schema, no rights, and no certain version.
select json_build_object(
    'version', current_setting('server_version'),
    'version_num', current_setting('server_version_num')::int,
    'user', current_user,
    'database', current_database(),
    'standby', pg_is_in_recovery(),
    'read_only', current_setting('transaction_read_only')::bool,
    'read_only_by', (select source from pg_settings where name = 'default_transaction_read_only'),
    'statement_timeout', current_setting('statement_timeout'),
    'now_s', extract(epoch from clock_timestamp()))
