-- What decides whether the outbox can work with this server, as one JSON object. It needs no schema, no rights, and no certain version.
select json_build_object(
    'version', current_setting('server_version'),
    'version_num', current_setting('server_version_num')::int,
    'encoding', current_setting('server_encoding'),
    'user', current_user,
    'database', current_database(),
    'standby', pg_is_in_recovery(),
    'read_only', current_setting('transaction_read_only')::bool,
    'read_only_by', (select source from pg_settings where name = 'default_transaction_read_only'),
    'statement_timeout', current_setting('statement_timeout'),
    'unsafe', (select coalesce(json_agg(name order by name), '[]') from pg_settings
               where name in ('fsync', 'full_page_writes') and setting = 'off'),
    'synchronous_standbys', current_setting('synchronous_standby_names'),
    -- Receivers of the write-ahead log that are no logical subscribers. Without pg_monitor's rights only the process is known.
    'standbys', (select count(*) from pg_stat_replication r
                 where coalesce(r.application_name, '') not in ('pg_basebackup', 'pg_receivewal')
                   and not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')),
    'notifications', pg_notification_queue_usage(),
    -- Sessions that may keep the queue of notifications full: in an old transaction, or with a client that reads nothing.
    'deaf', (select json_build_object('pid', a.pid, 'application', a.application_name, 'database', a.datname)
             from pg_stat_activity a
             where a.pid <> pg_backend_pid() and a.backend_type = 'client backend' and (a.xact_start is not null or a.wait_event = 'ClientWrite')
             order by coalesce(a.xact_start, a.state_change) limit 1),
    'now_s', extract(epoch from clock_timestamp()))
